(module
  (import "wasi:http/types@0.2.0" "[method]incoming-request.path-with-query" (func $path (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[resource-drop]incoming-request" (func $drop-request (param i32)))
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-response" (func $response (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-response.set-status-code" (func $status (param i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-response.body" (func $body (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-body.write" (func $stream (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]outgoing-body.finish" (func $finish (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]response-outparam.set"
    (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[resource-drop]response-outparam" (func $drop-out (param i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $drop-stream (param i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $after (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop-pollable (param i32)))

  ;; 0: results of imports; 256: the answer; 2048: the count's letter; 4096: the request's path, anew for each.
  (memory (export "memory") 2)
  (data (i32.const 256) "@TEXT@")
  (global $count (mut i32) (i32.const 0))
  (global $heap (mut i32) (i32.const 4096))

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  ;; Begins the answer: sets it, and returns its body.
  (func $begin (param $out i32) (param $code i32) (result i32)
    (local $answer i32)
    (local $the-body i32)
    (local.set $answer (call $response (call $fields)))
    (drop (call $status (local.get $answer) (local.get $code)))
    (call $body (local.get $answer) (i32.const 0))
    (local.set $the-body (i32.load (i32.const 4)))
    (call $set (local.get $out) (i32.const 0) (local.get $answer) (i32.const 0) (i64.const 0)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (local.get $the-body))

  ;; The whole answer.
  (func $answer (param $out i32) (param $code i32) (param $from i32) (param $length i32)
    (local $the-body i32)
    (local $to i32)
    (local.set $the-body (call $begin (local.get $out) (local.get $code)))
    (call $stream (local.get $the-body) (i32.const 0))
    (local.set $to (i32.load (i32.const 4)))
    (call $write (local.get $to) (local.get $from) (local.get $length) (i32.const 0))
    (call $drop-stream (local.get $to))
    (call $finish (local.get $the-body) (i32.const 0) (i32.const 0) (i32.const 0)))

  (func $wait (param $ns i64)
    (local $pollable i32)
    (local.set $pollable (call $after (local.get $ns)))
    (call $block (local.get $pollable))
    (call $drop-pollable (local.get $pollable)))

  ;; 64 chunks of 4 KiB, or a trap after 40 of them.
  (func $long-answer (param $out i32) (param $breaks i32)
    (local $the-body i32)
    (local $to i32)
    (local $left i32)
    (local.set $the-body (call $begin (local.get $out) (i32.const 200)))
    (call $stream (local.get $the-body) (i32.const 0))
    (local.set $to (i32.load (i32.const 4)))
    (local.set $left (i32.const 64))
    (loop $next
      (call $write (local.get $to) (i32.const 8192) (i32.const 4096) (i32.const 0))
      (if (i32.and (local.get $breaks) (i32.eq (local.get $left) (i32.const 24))) (then (unreachable)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))
    (call $drop-stream (local.get $to))
    (call $finish (local.get $the-body) (i32.const 0) (i32.const 0) (i32.const 0)))

  (func (export "wasi:http/incoming-handler@0.2.0#handle") (param $request i32) (param $out i32)
    (local $what i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (global.set $heap (i32.const 4096))
    (call $path (local.get $request) (i32.const 0))
    (if (i32.gt_u (i32.load (i32.const 8)) (i32.const 1))
      (then (local.set $what (i32.load8_u offset=1 (i32.load (i32.const 4))))))
    (call $drop-request (local.get $request))

    (if (i32.eq (local.get $what) (i32.const 116)) ;; t
      (then (unreachable)))
    (if (i32.eq (local.get $what) (i32.const 108)) ;; l
      (then (loop $forever (br $forever))))
    (if (i32.eq (local.get $what) (i32.const 109)) ;; m
      (then (loop $more
        (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        (unreachable)))
    (if (i32.eq (local.get $what) (i32.const 119)) ;; w
      (then (call $wait (i64.const 200000000))))
    (if (i32.eq (local.get $what) (i32.const 115)) ;; s
      (then (call $long-answer (local.get $out) (i32.const 0)) (return)))
    (if (i32.eq (local.get $what) (i32.const 98)) ;; b
      (then (call $long-answer (local.get $out) (i32.const 1)) (return)))
    (if (i32.eq (local.get $what) (i32.const 110)) ;; n
      (then (call $drop-out (local.get $out)) (return)))
    (if (i32.eq (local.get $what) (i32.const 117)) ;; u
      (then (drop (call $begin (local.get $out) (i32.const 200))) (return)))
    (if (i32.eq (local.get $what) (i32.const 101)) ;; e
      (then (call $answer (local.get $out) (i32.const 500) (i32.const 256) (i32.const @LENGTH@)) (return)))
    (if (i32.eq (local.get $what) (i32.const 99)) ;; c
      (then
        (i32.store8 (i32.const 2048) (i32.add (i32.const 96) (global.get $count)))
        (call $answer (local.get $out) (i32.const 200) (i32.const 2048) (i32.const 1)) (return)))
    (call $answer (local.get $out) (i32.const 200) (i32.const 256) (i32.const @LENGTH@))))
