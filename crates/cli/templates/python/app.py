"""{{NAME}}: answers HTTP requests under /{{NAME}}."""

import json

from answer import answer
from componentize_py_types import Err, Ok
from wit_world.exports import IncomingHandler as Base
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)
from wit_world.imports.streams import StreamError_Closed


def body(request: IncomingRequest) -> bytes:
    data = b""
    with request.consume() as incoming, incoming.stream() as stream:
        while True:
            try:
                data += stream.blocking_read(65536)
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    return data
                raise


def method(request: IncomingRequest) -> str:
    return type(request.method()).__name__.removeprefix("Method_").upper()


class IncomingHandler(Base):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        # An instance serves thousands of requests: what the host lends for one is given back with it.
        with request:
            path = (request.path_with_query() or "/").split("?")[0]
            status, value = answer(method(request), path, body(request))
        data = json.dumps(value).encode()
        headers = Fields.from_list(
            [
                ("content-type", b"application/json"),
                ("content-length", str(len(data)).encode()),
            ]
        )
        response = OutgoingResponse(headers)
        response.set_status_code(status)
        outgoing = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with outgoing.write() as stream:
            # The host takes at most 4,096 bytes at once.
            for at in range(0, len(data), 4096):
                stream.blocking_write_and_flush(data[at : at + 4096])
        OutgoingBody.finish(outgoing, None)
