;; Checks contents against a list of SHA-256 sums, as `sha256sum --check` does with files. `release_hasher.wasm` beside this
;; file is what comes of it; a test assembles it anew and compares.
;;
;; Command line: its own name, `--`, the text of the sums (`HEX  NAME` or `HEX *NAME` a line), then name and content of each
;; entry. On standard output a line for each: `NAME: OK`, `NAME: FAILED` or `NAME: not listed`.
;;
;; Memory: 0 constants of the rounds · 256 first state · 288 state · 320 schedule · 576 last blocks · 704 digest in hex
;; 1024 numbers of the host · 1040 texts · 4096 pointers to the arguments, then the arguments
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)

  (data (i32.const 0)
    "\98\2f\8a\42\91\44\37\71\cf\fb\c0\b5\a5\db\b5\e9\5b\c2\56\39\f1\11\f1\59\a4\82\3f\92\d5\5e\1c\ab"
    "\98\aa\07\d8\01\5b\83\12\be\85\31\24\c3\7d\0c\55\74\5d\be\72\fe\b1\de\80\a7\06\dc\9b\74\f1\9b\c1"
    "\c1\69\9b\e4\86\47\be\ef\c6\9d\c1\0f\cc\a1\0c\24\6f\2c\e9\2d\aa\84\74\4a\dc\a9\b0\5c\da\88\f9\76"
    "\52\51\3e\98\6d\c6\31\a8\c8\27\03\b0\c7\7f\59\bf\f3\0b\e0\c6\47\91\a7\d5\51\63\ca\06\67\29\29\14"
    "\85\0a\b7\27\38\21\1b\2e\fc\6d\2c\4d\13\0d\38\53\54\73\0a\65\bb\0a\6a\76\2e\c9\c2\81\85\2c\72\92"
    "\a1\e8\bf\a2\4b\66\1a\a8\70\8b\4b\c2\a3\51\6c\c7\19\e8\92\d1\24\06\99\d6\85\35\0e\f4\70\a0\6a\10"
    "\16\c1\a4\19\08\6c\37\1e\4c\77\48\27\b5\bc\b0\34\b3\0c\1c\39\4a\aa\d8\4e\4f\ca\9c\5b\f3\6f\2e\68"
    "\ee\82\8f\74\6f\63\a5\78\14\78\c8\84\08\02\c7\8c\fa\ff\be\90\eb\6c\50\a4\f7\a3\f9\be\f2\78\71\c6")
  (data (i32.const 256)
    "\67\e6\09\6a\85\ae\67\bb\72\f3\6e\3c\3a\f5\4f\a5\7f\52\0e\51\8c\68\05\9b\ab\d9\83\1f\19\cd\e0\5b")
  (data (i32.const 1040) ": OK\n: FAILED\n: not listed\n0123456789abcdef")

  (func $swapped (param $x i32) (result i32)
    (i32.or
      (i32.and (i32.rotl (local.get $x) (i32.const 8)) (i32.const 0x00ff00ff))
      (i32.and (i32.rotr (local.get $x) (i32.const 8)) (i32.const 0xff00ff00))))

  ;; The number at place $t of the schedule.
  (func $w (param $t i32) (result i32)
    (i32.load offset=320 (i32.shl (local.get $t) (i32.const 2))))

  ;; Takes one block of 64 bytes into the state.
  (func $compress (param $block i32)
    (local $t i32) (local $x i32) (local $y i32)
    (local $a i32) (local $b i32) (local $c i32) (local $d i32)
    (local $e i32) (local $f i32) (local $g i32) (local $h i32)
    (loop $first
      (i32.store offset=320
        (i32.shl (local.get $t) (i32.const 2))
        (call $swapped (i32.load (i32.add (local.get $block) (i32.shl (local.get $t) (i32.const 2))))))
      (br_if $first (i32.lt_u (local.tee $t (i32.add (local.get $t) (i32.const 1))) (i32.const 16))))
    (loop $rest
      (local.set $x (call $w (i32.sub (local.get $t) (i32.const 15))))
      (local.set $y (call $w (i32.sub (local.get $t) (i32.const 2))))
      (i32.store offset=320
        (i32.shl (local.get $t) (i32.const 2))
        (i32.add
          (i32.add
            (call $w (i32.sub (local.get $t) (i32.const 16)))
            (call $w (i32.sub (local.get $t) (i32.const 7))))
          (i32.add
            (i32.xor
              (i32.xor (i32.rotr (local.get $x) (i32.const 7)) (i32.rotr (local.get $x) (i32.const 18)))
              (i32.shr_u (local.get $x) (i32.const 3)))
            (i32.xor
              (i32.xor (i32.rotr (local.get $y) (i32.const 17)) (i32.rotr (local.get $y) (i32.const 19)))
              (i32.shr_u (local.get $y) (i32.const 10))))))
      (br_if $rest (i32.lt_u (local.tee $t (i32.add (local.get $t) (i32.const 1))) (i32.const 64))))
    (local.set $a (i32.load (i32.const 288)))
    (local.set $b (i32.load (i32.const 292)))
    (local.set $c (i32.load (i32.const 296)))
    (local.set $d (i32.load (i32.const 300)))
    (local.set $e (i32.load (i32.const 304)))
    (local.set $f (i32.load (i32.const 308)))
    (local.set $g (i32.load (i32.const 312)))
    (local.set $h (i32.load (i32.const 316)))
    (local.set $t (i32.const 0))
    (loop $round
      (local.set $x
        (i32.add
          (i32.add
            (i32.add (local.get $h) (call $w (local.get $t)))
            (i32.load (i32.shl (local.get $t) (i32.const 2))))
          (i32.add
            (i32.xor
              (i32.xor (i32.rotr (local.get $e) (i32.const 6)) (i32.rotr (local.get $e) (i32.const 11)))
              (i32.rotr (local.get $e) (i32.const 25)))
            (i32.xor
              (i32.and (local.get $e) (local.get $f))
              (i32.and (i32.xor (local.get $e) (i32.const -1)) (local.get $g))))))
      (local.set $y
        (i32.add
          (i32.xor
            (i32.xor (i32.rotr (local.get $a) (i32.const 2)) (i32.rotr (local.get $a) (i32.const 13)))
            (i32.rotr (local.get $a) (i32.const 22)))
          (i32.xor
            (i32.xor
              (i32.and (local.get $a) (local.get $b))
              (i32.and (local.get $a) (local.get $c)))
            (i32.and (local.get $b) (local.get $c)))))
      (local.set $h (local.get $g))
      (local.set $g (local.get $f))
      (local.set $f (local.get $e))
      (local.set $e (i32.add (local.get $d) (local.get $x)))
      (local.set $d (local.get $c))
      (local.set $c (local.get $b))
      (local.set $b (local.get $a))
      (local.set $a (i32.add (local.get $x) (local.get $y)))
      (br_if $round (i32.lt_u (local.tee $t (i32.add (local.get $t) (i32.const 1))) (i32.const 64))))
    (i32.store (i32.const 288) (i32.add (i32.load (i32.const 288)) (local.get $a)))
    (i32.store (i32.const 292) (i32.add (i32.load (i32.const 292)) (local.get $b)))
    (i32.store (i32.const 296) (i32.add (i32.load (i32.const 296)) (local.get $c)))
    (i32.store (i32.const 300) (i32.add (i32.load (i32.const 300)) (local.get $d)))
    (i32.store (i32.const 304) (i32.add (i32.load (i32.const 304)) (local.get $e)))
    (i32.store (i32.const 308) (i32.add (i32.load (i32.const 308)) (local.get $f)))
    (i32.store (i32.const 312) (i32.add (i32.load (i32.const 312)) (local.get $g)))
    (i32.store (i32.const 316) (i32.add (i32.load (i32.const 316)) (local.get $h))))

  ;; Leaves the SHA-256 of a text in hex at 704.
  (func $hash (param $at i32) (param $len i32)
    (local $left i32) (local $blocks i32)
    (memory.copy (i32.const 288) (i32.const 256) (i32.const 32))
    (local.set $left (local.get $len))
    (block $done
      (loop $whole
        (br_if $done (i32.lt_u (local.get $left) (i32.const 64)))
        (call $compress (local.get $at))
        (local.set $at (i32.add (local.get $at) (i32.const 64)))
        (local.set $left (i32.sub (local.get $left) (i32.const 64)))
        (br $whole)))
    ;; What is left, a bit, zeros, and the length in bits: one block or two.
    (memory.fill (i32.const 576) (i32.const 0) (i32.const 128))
    (memory.copy (i32.const 576) (local.get $at) (local.get $left))
    (i32.store8 offset=576 (local.get $left) (i32.const 0x80))
    (local.set $blocks (select (i32.const 128) (i32.const 64) (i32.gt_u (local.get $left) (i32.const 55))))
    (i32.store offset=568 (local.get $blocks) (call $swapped (i32.shr_u (local.get $len) (i32.const 29))))
    (i32.store offset=572 (local.get $blocks) (call $swapped (i32.shl (local.get $len) (i32.const 3))))
    (call $compress (i32.const 576))
    (if (i32.eq (local.get $blocks) (i32.const 128)) (then (call $compress (i32.const 640))))
    (call $hex))

  ;; Writes the state in hex.
  (func $hex
    (local $i i32) (local $byte i32)
    (loop $each
      ;; The bytes of each number come the highest first.
      (local.set $byte (i32.load8_u offset=288 (i32.xor (local.get $i) (i32.const 3))))
      (i32.store8 offset=704
        (i32.shl (local.get $i) (i32.const 1))
        (i32.load8_u offset=1067 (i32.shr_u (local.get $byte) (i32.const 4))))
      (i32.store8 offset=705
        (i32.shl (local.get $i) (i32.const 1))
        (i32.load8_u offset=1067 (i32.and (local.get $byte) (i32.const 15))))
      (br_if $each (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 32)))))

  ;; Bytes up to the one that is $end or 0.
  (func $until (param $at i32) (param $end i32) (result i32)
    (local $p i32) (local $byte i32)
    (local.set $p (local.get $at))
    (block $done
      (loop $next
        (local.set $byte (i32.load8_u (local.get $p)))
        (br_if $done (i32.or (i32.eqz (local.get $byte)) (i32.eq (local.get $byte) (local.get $end))))
        (local.set $p (i32.add (local.get $p) (i32.const 1)))
        (br $next)))
    (i32.sub (local.get $p) (local.get $at)))

  ;; Whether $len bytes are the same, with $or set in each of both.
  (func $same (param $a i32) (param $b i32) (param $len i32) (param $or i32) (result i32)
    (local $i i32)
    (block $differ
      (block $done
        (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $len)))
          (br_if $differ
            (i32.ne
              (i32.or (i32.load8_u (i32.add (local.get $a) (local.get $i))) (local.get $or))
              (i32.or (i32.load8_u (i32.add (local.get $b) (local.get $i))) (local.get $or))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))
      (return (i32.const 1)))
    (i32.const 0))

  (func $is (param $at i32) (param $byte i32) (result i32)
    (i32.eq (i32.load8_u (local.get $at)) (local.get $byte)))

  ;; 0 if no line of the sums names it, 1 if one does with the sum at 704, 2 if the first that does has another.
  (func $judged (param $sums i32) (param $name i32) (param $len i32) (result i32)
    (local $line i32)
    (loop $next
      (local.set $line (call $until (local.get $sums) (i32.const 10)))
      (if (i32.eq (local.get $line) (i32.add (local.get $len) (i32.const 66)))
        (then
          (if (i32.and
                (i32.and
                  (call $is (i32.add (local.get $sums) (i32.const 64)) (i32.const 32))
                  (i32.or
                    (call $is (i32.add (local.get $sums) (i32.const 65)) (i32.const 32))
                    (call $is (i32.add (local.get $sums) (i32.const 65)) (i32.const 42))))
                (call $same
                  (i32.add (local.get $sums) (i32.const 66)) (local.get $name) (local.get $len) (i32.const 0)))
            ;; Small letters are capitals with one bit more, and digits have it anyway.
            (then
              (return
                (select (i32.const 1) (i32.const 2)
                  (call $same (local.get $sums) (i32.const 704) (i32.const 64) (i32.const 32))))))))
      (local.set $sums (i32.add (local.get $sums) (local.get $line)))
      (if (i32.load8_u (local.get $sums))
        (then
          (local.set $sums (i32.add (local.get $sums) (i32.const 1)))
          (br $next))))
    (i32.const 0))

  (func $print (param $at i32) (param $len i32)
    (i32.store (i32.const 1024) (local.get $at))
    (i32.store (i32.const 1028) (local.get $len))
    (drop (call $fd_write (i32.const 1) (i32.const 1024) (i32.const 1) (i32.const 1032))))

  (func $arg (param $number i32) (result i32)
    (i32.load offset=4096 (i32.shl (local.get $number) (i32.const 2))))

  (func (export "_start")
    (local $count i32) (local $text i32) (local $i i32) (local $name i32) (local $len i32) (local $verdict i32)
    (drop (call $args_sizes_get (i32.const 1024) (i32.const 1028)))
    (local.set $count (i32.load (i32.const 1024)))
    (local.set $text (i32.add (i32.const 4096) (i32.shl (local.get $count) (i32.const 2))))
    (if (i32.eq
          (i32.const -1)
          (memory.grow (i32.shr_u (i32.add (local.get $text) (i32.load (i32.const 1028))) (i32.const 16))))
      (then unreachable))
    (drop (call $args_get (i32.const 4096) (local.get $text)))
    (local.set $i (i32.const 3))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (i32.add (local.get $i) (i32.const 1)) (local.get $count)))
        (local.set $name (call $arg (i32.add (local.get $i) (i32.const 1))))
        (call $hash (local.get $name) (call $until (local.get $name) (i32.const 0)))
        (local.set $name (call $arg (local.get $i)))
        (local.set $len (call $until (local.get $name) (i32.const 0)))
        (local.set $verdict (call $judged (call $arg (i32.const 2)) (local.get $name) (local.get $len)))
        (call $print (local.get $name) (local.get $len))
        (if (i32.eqz (local.get $verdict))
          (then (call $print (i32.const 1054) (i32.const 13)))
          (else
            (if (i32.eq (local.get $verdict) (i32.const 1))
              (then (call $print (i32.const 1040) (i32.const 5)))
              (else (call $print (i32.const 1045) (i32.const 9))))))
        (local.set $i (i32.add (local.get $i) (i32.const 2)))
        (br $next)))))
