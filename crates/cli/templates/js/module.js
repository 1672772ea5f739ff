// {{NAME}}: answers HTTP requests under /{{NAME}}.
import { IncomingRequest, Fields, OutgoingBody, OutgoingResponse, ResponseOutparam } from 'wasi:http/types@0.2.12';
import { answer } from './answer.js';

function body(request) {
  const incoming = request.consume();
  const stream = incoming.stream();
  const chunks = [];
  for (;;) {
    try {
      chunks.push(stream.blockingRead(65536n));
    } catch (error) {
      // The end of the body; anything else is the client's end.
      break;
    }
  }
  stream[Symbol.dispose]();
  incoming[Symbol.dispose]();
  let text = '';
  const decoder = new TextDecoder();
  for (const chunk of chunks) text += decoder.decode(chunk, { stream: true });
  return text + decoder.decode();
}

export const incomingHandler = {
  handle(request, out) {
    const path = request.pathWithQuery() ?? '/';
    const { status, value } = answer(request.method().tag.toUpperCase(), path.split('?')[0], body(request));
    // An instance serves thousands of requests: what the host lends for one is given back with it, not when memory is
    // next collected.
    request[Symbol.dispose]();
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    const response = new OutgoingResponse(
      Fields.fromList([
        ['content-type', new TextEncoder().encode('application/json')],
        ['content-length', new TextEncoder().encode(String(bytes.length))],
      ]),
    );
    response.setStatusCode(status);
    const outgoing = response.body();
    ResponseOutparam.set(out, { tag: 'ok', val: response });
    const stream = outgoing.write();
    // The host takes at most 4,096 bytes at once.
    for (let at = 0; at < bytes.length; at += 4096) {
      stream.blockingWriteAndFlush(bytes.subarray(at, at + 4096));
    }
    stream[Symbol.dispose]();
    OutgoingBody.finish(outgoing, undefined);
  },
};
