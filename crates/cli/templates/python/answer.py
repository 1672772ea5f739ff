"""What the module says: plain functions, which `python3 -m unittest` tries without any host."""

VERSION = "0.1.0"


def answer(method: str, path: str, body: bytes) -> tuple[int, dict]:
    match method, path:
        case "GET", "/{{NAME}}":
            return 200, {"status": "ok", "version": VERSION}
        case "POST", "/{{NAME}}/echo":
            return 200, {"echo": body.decode(errors="replace")}
    return 404, {"error": f"nothing at {method} {path}"}
