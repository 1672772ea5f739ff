// {{NAME}}: answers HTTP requests under /{{NAME}}.
#include "answer.h"
#include "bindings/module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Most of a request's body that is read, and of an answer that is made.
#define BODY_MAX (1 << 20)
#define ANSWER_MAX (BODY_MAX + 64)
// The host takes and gives so much at once.
#define WRITE_MAX 4096
#define READ_MAX 65536

static const char *method_name(const wasi_http_types_method_t *method) {
  switch (method->tag) {
    case WASI_HTTP_TYPES_METHOD_GET: return "GET";
    case WASI_HTTP_TYPES_METHOD_HEAD: return "HEAD";
    case WASI_HTTP_TYPES_METHOD_POST: return "POST";
    case WASI_HTTP_TYPES_METHOD_PUT: return "PUT";
    case WASI_HTTP_TYPES_METHOD_DELETE: return "DELETE";
    default: return "OTHER";
  }
}

// Reads the whole body; returns its length.
static size_t read_body(wasi_http_types_borrow_incoming_request_t request, char *into) {
  wasi_http_types_own_incoming_body_t body;
  if (!wasi_http_types_method_incoming_request_consume(request, &body)) return 0;
  wasi_http_types_own_input_stream_t stream;
  size_t len = 0;
  if (wasi_http_types_method_incoming_body_stream(wasi_http_types_borrow_incoming_body(body), &stream)) {
    module_list_u8_t chunk;
    wasi_io_streams_stream_error_t end;
    while (len < BODY_MAX &&
           wasi_io_streams_method_input_stream_blocking_read(wasi_io_streams_borrow_input_stream(stream), READ_MAX,
                                                             &chunk, &end)) {
      size_t taken = chunk.len < BODY_MAX - len ? chunk.len : BODY_MAX - len;
      memcpy(into + len, chunk.ptr, taken);
      len += taken;
      module_list_u8_free(&chunk);
    }
    wasi_io_streams_input_stream_drop_own(stream);
  }
  wasi_http_types_incoming_body_drop_own(body);
  return len;
}

static void header(wasi_http_types_borrow_fields_t fields, const char *name, const char *value) {
  module_string_t key;
  module_string_set(&key, name);
  wasi_http_types_field_value_t text = {(uint8_t *)value, strlen(value)};
  wasi_http_types_header_error_t error;
  wasi_http_types_method_fields_append(fields, &key, &text, &error);
}

void exports_wasi_http_incoming_handler_handle(exports_wasi_http_incoming_handler_own_incoming_request_t request,
                                               exports_wasi_http_incoming_handler_own_response_outparam_t out) {
  // One request at a time is in an instance, so one room for each is enough.
  static char body[BODY_MAX], said[ANSWER_MAX];
  wasi_http_types_borrow_incoming_request_t asked = wasi_http_types_borrow_incoming_request(request);
  wasi_http_types_method_t method;
  wasi_http_types_method_incoming_request_method(asked, &method);
  module_string_t target;
  char path[1024] = "/";
  if (wasi_http_types_method_incoming_request_path_with_query(asked, &target)) {
    snprintf(path, sizeof path, "%.*s", (int)target.len, (const char *)target.ptr);
    path[strcspn(path, "?")] = 0;
    module_string_free(&target);
  }
  size_t body_len = read_body(asked, body), len = 0;
  int status = answer(method_name(&method), path, body, body_len, said, sizeof said, &len);
  wasi_http_types_method_free(&method);
  // An instance serves thousands of requests: what the host lends for one is given back with it.
  wasi_http_types_incoming_request_drop_own(request);

  wasi_http_types_own_fields_t fields = wasi_http_types_constructor_fields();
  char length[24];
  snprintf(length, sizeof length, "%zu", len);
  header(wasi_http_types_borrow_fields(fields), "content-type", "application/json");
  header(wasi_http_types_borrow_fields(fields), "content-length", length);
  wasi_http_types_own_outgoing_response_t response = wasi_http_types_constructor_outgoing_response(fields);
  wasi_http_types_borrow_outgoing_response_t made = wasi_http_types_borrow_outgoing_response(response);
  wasi_http_types_method_outgoing_response_set_status_code(made, (uint16_t)status);
  wasi_http_types_own_outgoing_body_t outgoing;
  if (!wasi_http_types_method_outgoing_response_body(made, &outgoing)) abort();
  wasi_http_types_result_own_outgoing_response_error_code_t done = {.is_err = false, .val = {.ok = response}};
  wasi_http_types_static_response_outparam_set(out, &done);

  wasi_http_types_own_output_stream_t stream;
  if (!wasi_http_types_method_outgoing_body_write(wasi_http_types_borrow_outgoing_body(outgoing), &stream)) abort();
  for (size_t at = 0; at < len; at += WRITE_MAX) {
    size_t left = len - at;
    module_list_u8_t part = {(uint8_t *)said + at, left < WRITE_MAX ? left : WRITE_MAX};
    wasi_io_streams_stream_error_t gone;
    if (!wasi_io_streams_method_output_stream_blocking_write_and_flush(wasi_io_streams_borrow_output_stream(stream),
                                                                       &part, &gone))
      break;
  }
  wasi_io_streams_output_stream_drop_own(stream);
  wasi_http_types_error_code_t error;
  wasi_http_types_static_outgoing_body_finish(outgoing, NULL, &error);
}
