//! A component that tries everything it should not, for tests of what stops it.
//!
//! Beside what [`component`](super::component) does: `/rHOST:PORT/PATH` sends a request there and answers with its
//! status, or 502 and a letter for the error (`A` + the place in `wasi:http`'s list, so `P` is "denied"); `/yHOST:PORT` sends itself the same
//! request, without end; `/vars` and
//! `/files` answer how many environment variables and folders it finds, in one letter from `a`; `/xsocket` asks for a
//! TCP socket and answers `o`, or the error's letter (`B` is "access denied"); `/gush` writes 20,000 lines to its
//! output and answers.

use super::{WAT, WIT, encode};

/// Lines that `/gush` writes.
pub const LINES: u32 = 20_000;

const IMPORTS: &str = "
  import wasi:cli/environment@0.2.0;
  import wasi:cli/stdout@0.2.0;
  import wasi:filesystem/preopens@0.2.0;
  import wasi:sockets/tcp-create-socket@0.2.0;
  import wasi:http/outgoing-handler@0.2.0;
  export wasi:http/incoming-handler@0.2.0;";

const TYPES: &str = "
    use wasi:io/poll@0.2.0.{pollable};
    variant scheme { HTTP, HTTPS, other(string) }
    resource outgoing-request {
      constructor(headers: headers);
      set-path-with-query: func(path-with-query: option<string>) -> result;
      set-scheme: func(scheme: option<scheme>) -> result;
      set-authority: func(authority: option<string>) -> result;
    }
    resource request-options { constructor(); }
    resource incoming-response { status: func() -> u16; }
    resource future-incoming-response {
      subscribe: func() -> pollable;
      get: func() -> option<result<result<incoming-response, error-code>>>;
    }
    resource response-outparam {";

const HANDLER: &str = "
  interface outgoing-handler {
    use types.{outgoing-request, request-options, future-incoming-response, error-code};
    handle: func(request: outgoing-request, options: option<request-options>)
      -> result<future-incoming-response, error-code>;
  }
  interface incoming-handler {";

const PACKAGES: &str = "
package wasi:cli@0.2.0 {
  interface environment { get-environment: func() -> list<tuple<string, string>>; }
  interface stdout {
    use wasi:io/streams@0.2.0.{output-stream};
    get-stdout: func() -> output-stream;
  }
}
package wasi:filesystem@0.2.0 {
  interface types { resource descriptor; }
  interface preopens {
    use types.{descriptor};
    get-directories: func() -> list<tuple<descriptor, string>>;
  }
}
package wasi:sockets@0.2.0 {
  interface network {
    enum error-code {
      unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout, concurrency-conflict,
      not-in-progress, would-block, invalid-state, new-socket-limit, address-not-bindable, address-in-use,
      remote-unreachable, connection-refused, connection-reset, connection-aborted, datagram-too-large,
      name-unresolvable, temporary-resolver-failure, permanent-resolver-failure
    }
    enum ip-address-family { ipv4, ipv6 }
  }
  interface tcp { resource tcp-socket; }
  interface tcp-create-socket {
    use network.{error-code, ip-address-family};
    use tcp.{tcp-socket};
    create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
  }
}
";

const FUNCTIONS: &str = r#"
  (import "wasi:cli/environment@0.2.0" "get-environment" (func $variables (param i32)))
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
  (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $folders (param i32)))
  (import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket" (func $socket (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query"
    (func $set-path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme"
    (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
    (func $set-authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $send (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]future-incoming-response.subscribe" (func $arrival (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]future-incoming-response.get" (func $get (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[resource-drop]future-incoming-response" (func $drop-future (param i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-response.status" (func $status-of (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[resource-drop]incoming-response" (func $drop-response (param i32)))

  ;; 0: results of imports"#;

const BODIES: &str = r#"
  ;; One letter as the whole answer.
  (func $letter (param $out i32) (param $code i32) (param $letter i32)
    (i32.store8 (i32.const 2048) (local.get $letter))
    (call $answer (local.get $out) (local.get $code) (i32.const 2048) (i32.const 1)))

  ;; Sends a request to what follows the first two characters of the path, up to the next slash.
  ;; The request's path is the rest, or all of its own.
  (func $relay (param $out i32) (param $text i32) (param $length i32) (param $whole i32)
    (local $from i32)
    (local $at i32)
    (local $sent i32)
    (local $future i32)
    (local $pollable i32)
    (local.set $at (i32.const 2))
    (block $found (loop $next
      (br_if $found (i32.ge_u (local.get $at) (local.get $length)))
      (br_if $found (i32.eq (i32.load8_u (i32.add (local.get $text) (local.get $at))) (i32.const 47)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
    (local.set $sent (call $request (call $fields)))
    (drop (call $set-scheme (local.get $sent) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
    (drop (call $set-authority (local.get $sent) (i32.const 1)
      (i32.add (local.get $text) (i32.const 2)) (i32.sub (local.get $at) (i32.const 2))))
    (local.set $from (if (result i32) (local.get $whole) (then (i32.const 0)) (else (local.get $at))))
    (drop (call $set-path (local.get $sent) (i32.const 1)
      (i32.add (local.get $text) (local.get $from)) (i32.sub (local.get $length) (local.get $from))))
    (call $send (local.get $sent) (i32.const 0) (i32.const 0) (i32.const 64))
    (if (i32.load8_u (i32.const 64))
      (then
        (call $letter (local.get $out) (i32.const 502) (i32.add (i32.const 65) (i32.load8_u (i32.const 72))))
        (return)))
    (local.set $future (i32.load (i32.const 72)))
    (local.set $pollable (call $arrival (local.get $future)))
    (call $block (local.get $pollable))
    (call $drop-pollable (local.get $pollable))
    (call $get (local.get $future) (i32.const 64))
    (call $drop-future (local.get $future))
    (if (i32.load8_u (i32.const 80))
      (then
        (call $letter (local.get $out) (i32.const 502) (i32.add (i32.const 65) (i32.load8_u (i32.const 88))))
        (return)))
    (local.set $at (call $status-of (i32.load (i32.const 88))))
    (call $drop-response (i32.load (i32.const 88)))
    (call $letter (local.get $out) (local.get $at) (i32.const 46)))

  (func $gush
    (local $to i32)
    (local $left i32)
    (local.set $to (call $stdout))
    (local.set $left (i32.const @LINES@))
    (loop $next
      (call $write (local.get $to) (i32.const 2064) (i32.const 6) (i32.const 0))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))
    (call $drop-stream (local.get $to)))
  (data (i32.const 2064) "flood\n")

  (func (export "wasi:http/incoming-handler@0.2.0#handle")"#;

const PATHS: &str = r#"
    (if (i32.eq (local.get $what) (i32.const 114)) ;; r
      (then
        (call $relay (local.get $out) (i32.load (i32.const 4)) (i32.load (i32.const 8)) (i32.const 0)) (return)))
    (if (i32.eq (local.get $what) (i32.const 121)) ;; y
      (then
        (call $relay (local.get $out) (i32.load (i32.const 4)) (i32.load (i32.const 8)) (i32.const 1)) (return)))
    (if (i32.eq (local.get $what) (i32.const 118)) ;; v
      (then
        (call $variables (i32.const 64))
        (call $letter (local.get $out) (i32.const 200) (i32.add (i32.const 97) (i32.load (i32.const 68)))) (return)))
    (if (i32.eq (local.get $what) (i32.const 102)) ;; f
      (then
        (call $folders (i32.const 64))
        (call $letter (local.get $out) (i32.const 200) (i32.add (i32.const 97) (i32.load (i32.const 68)))) (return)))
    (if (i32.eq (local.get $what) (i32.const 120)) ;; x
      (then
        (call $socket (i32.const 0) (i32.const 64))
        (if (i32.load8_u (i32.const 64))
          (then (call $letter (local.get $out) (i32.const 200)
            (i32.add (i32.const 65) (i32.load8_u (i32.const 68)))) (return)))
        (call $letter (local.get $out) (i32.const 200) (i32.const 111)) (return)))
    (if (i32.eq (local.get $what) (i32.const 103)) ;; g
      (then (call $gush)))
    (if (i32.eq (local.get $what) (i32.const 116)) ;; t"#;

/// The component; `/ok` answers with `text`.
///
/// # Panics
/// As [`component`](super::component).
pub fn component(text: &str) -> Vec<u8> {
    let once = |whole: String, from: &str, to: &str| {
        assert_eq!(whole.matches(from).count(), 1, "{from:?} is there once");
        whole.replacen(from, to, 1)
    };
    let wit = once(
        WIT.to_owned(),
        "\n  export wasi:http/incoming-handler@0.2.0;",
        IMPORTS,
    );
    let wit = once(wit, "\n    resource response-outparam {", TYPES);
    let wit = once(wit, "\n  interface incoming-handler {", HANDLER) + PACKAGES;
    let wat = once(WAT.to_owned(), "\n  ;; 0: results of imports", FUNCTIONS);
    let wat = once(
        wat,
        "\n  (func (export \"wasi:http/incoming-handler@0.2.0#handle\")",
        BODIES,
    );
    let wat = once(
        wat,
        "\n    (if (i32.eq (local.get $what) (i32.const 116)) ;; t",
        PATHS,
    );
    let wat = wat.replace("@LINES@", &LINES.to_string());
    let wat = wat
        .replace("@TEXT@", text)
        .replace("@LENGTH@", &text.len().to_string());
    encode(&wat, &wit)
}
