//! The smallest useful module: shows that a fleet serves, and gives tests what they need to see.
//!
//! `GET /smoke`, `POST /smoke/echo`, `GET /smoke/status/CODE`, `GET /smoke/work/ROUNDS`.

use std::cell::Cell;

use hotswap_guest::{Request, Response, fingerprint};
use serde::Serialize;

hotswap_guest::serve!(handle);

/// Most rounds of `/smoke/work`: some tens of milliseconds.
const ROUNDS_MAX: u64 = 10_000_000;

thread_local! {
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

#[derive(Serialize)]
struct Up<'a> {
    status: &'a str,
    version: &'a str,
    /// Requests that this instance has served: shows whether instances are reused.
    requests: u64,
}

#[derive(Serialize)]
struct Work {
    rounds: u64,
    result: String,
}

fn handle(request: &Request) -> Response {
    SEEN.set(SEEN.get() + 1);
    match (request.method.as_str(), request.segments("/smoke").as_slice()) {
        ("GET", []) => Response::json(
            200,
            &Up {
                status: "ok",
                version: env!("MODULE_VERSION"),
                requests: SEEN.get(),
            },
        ),
        ("POST", ["echo"]) => Response {
            status: 200,
            body: request.body.clone(),
            content_type: "application/octet-stream",
        },
        ("GET", ["status", code]) => match code.parse() {
            Ok(code @ 200..=599) => Response::error(code, "as asked for"),
            _ => Response::error(400, "a status is 200 to 599"),
        },
        ("GET", ["work", rounds]) => match rounds.parse() {
            Ok(rounds @ 1..=ROUNDS_MAX) => work(rounds),
            _ => Response::error(400, "rounds are 1 to 10000000"),
        },
        _ => Response::not_found(request),
    }
}

fn work(rounds: u64) -> Response {
    let result = (0..rounds).fold(0, |hash: u64, round| {
        fingerprint(&[&(hash ^ round).to_le_bytes()])
    });
    Response::json(
        200,
        &Work {
            rounds,
            result: format!("{result:016x}"),
        },
    )
}
