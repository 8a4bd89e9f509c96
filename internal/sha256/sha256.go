// Package sha256 is the hash of FIPS 180-4 for what is short and public, the names of sockets.
//
// It exists for what the standard library's links beside it: a validated module with its self tests,
// its ciphers and its random numbers, in every shim (docs/performance.md). It takes no care to hide
// what it hashes and is several times slower, which is a microsecond for each start.
package sha256

import (
	"encoding/binary"
	"math/bits"
)

// Size is the length of a sum, in bytes.
const Size = 32

// block is what is hashed at a time, in bytes.
const block = 64

// initial is the first 32 bits of the fractional parts of the square roots of the first eight primes
// (FIPS 180-4, 5.3.3).
var initial = [8]uint32{
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}

// rounds is those of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2).
var rounds = [block]uint32{
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}

// Sum returns the hash of data.
func Sum(data []byte) [Size]byte {
	length := uint64(len(data)) * 8 // in bits
	data = append(data[:len(data):len(data)], 0x80)
	for len(data)%block != block-8 {
		data = append(data, 0)
	}
	data = binary.BigEndian.AppendUint64(data, length)

	h := initial
	for ; len(data) > 0; data = data[block:] {
		add(&h, data[:block])
	}
	var sum [Size]byte
	for i, word := range h {
		binary.BigEndian.PutUint32(sum[4*i:], word)
	}
	return sum
}

// add mixes a block into the state (FIPS 180-4, 6.2.2).
func add(state *[8]uint32, data []byte) {
	var w [block]uint32
	for t := range w {
		if t < 16 {
			w[t] = binary.BigEndian.Uint32(data[4*t:])
			continue
		}
		s0 := turn(w[t-15], 7) ^ turn(w[t-15], 18) ^ w[t-15]>>3
		s1 := turn(w[t-2], 17) ^ turn(w[t-2], 19) ^ w[t-2]>>10
		w[t] = w[t-16] + s0 + w[t-7] + s1
	}
	v := *state
	for t := range w {
		s0 := turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22)
		s1 := turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25)
		choice := v[4]&v[5] ^ ^v[4]&v[6]
		majority := v[0]&v[1] ^ v[0]&v[2] ^ v[1]&v[2]
		t1 := v[7] + s1 + choice + rounds[t] + w[t]
		copy(v[1:], v[:7])
		v[4] += t1
		v[0] = t1 + s0 + majority
	}
	for i := range state {
		state[i] += v[i]
	}
}

// turn rotates x right by n bits.
func turn(x uint32, n int) uint32 { return bits.RotateLeft32(x, -n) }
