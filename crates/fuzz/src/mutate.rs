//! Inputs that are nearly right: seeds, damaged as files and messages are, or as somebody with ill will would.

use fastrand::Rng;

/// Longest input that is made, in bytes.
pub const INPUT_LEN_MAX: usize = 64 * 1024;
/// Most changes of one input.
const CHANGES_MAX: usize = 8;
/// Most copies of a piece that is repeated.
const COPIES_MAX: usize = 64;

/// What parsers of text and of frames trip over.
const WORDS: &[&[u8]] = &[
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"=",
    b"\n",
    b"#",
    b"..",
    b"/",
    b"\\u0000",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e400",
    b"NaN",
    b"0x",
    b"18446744073709551615",
    b"9223372036854775808",
    b"4294967296",
    b"-9223372036854775809",
    b"999999999999999999999999",
    b"\xEF\xBB\xBF",
    b"\xFF\xFF\xFF\xFF\x0F",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x00\x00\x00\x00",
    b"\xC3\x28",
    b"\xF0\x9F\x92\xA9",
    b"%00",
    b"\r\n",
    b"30\x80",
    b"\x30\x84\xFF\xFF\xFF\xFF",
    b"ustar\x0000",
    b"*/0",
    b"60",
    b"31d",
    b"9999h",
];

/// Makes inputs from seeds; the same number makes the same inputs.
#[derive(Debug)]
pub struct Mutator {
    rng: Rng,
}

impl Mutator {
    /// Draws from this number.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
        }
    }

    /// One of the seeds, changed in up to eight places.
    pub fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.seed(seeds).to_vec();
        for _ in 0..self.rng.usize(1..=CHANGES_MAX) {
            self.change(&mut input, seeds);
        }
        input.truncate(INPUT_LEN_MAX);
        input
    }

    fn seed<'a>(&mut self, seeds: &'a [Vec<u8>]) -> &'a [u8] {
        match seeds.len() {
            0 => &[],
            many => &seeds[self.rng.usize(..many)],
        }
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.rng.usize(..=input.len());
        let end = (at + self.rng.usize(0..=32)).min(input.len());
        match self.rng.u8(0..10) {
            0 if at < input.len() => input[at] ^= 1 << self.rng.u8(0..8),
            1 if at < input.len() => input[at] = self.rng.u8(..),
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => {
                let piece = input[at..end].to_vec();
                let copies = self.rng.usize(1..=COPIES_MAX);
                input.splice(at..at, piece.repeat(copies));
            }
            5 => {
                let other = self.seed(seeds);
                let from = self.rng.usize(..=other.len());
                let piece = &other[from..(from + self.rng.usize(0..=256)).min(other.len())];
                input.splice(at..end, piece.iter().copied());
            }
            6 => {
                let digits = input.iter().position(u8::is_ascii_digit);
                let at = digits.map_or(at, |first| first.max(at.min(input.len().saturating_sub(1))));
                let end = (at + 1).min(input.len());
                let numbers = [0, 1, u64::MAX, u64::from(u32::MAX) + 1, self.rng.u64(..)];
                let number = numbers[self.rng.usize(..numbers.len())];
                input.splice(at..end, number.to_string().into_bytes());
            }
            _ => {
                let word = WORDS[self.rng.usize(..WORDS.len())];
                let end = if self.rng.bool() { at } else { end };
                input.splice(at..end, word.iter().copied());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_makes_the_same_inputs_and_none_is_too_long() {
        let seeds = [vec![b'7'; INPUT_LEN_MAX], b"{\"a\": 1}".to_vec()];
        let (mut one, mut other) = (Mutator::new(3), Mutator::new(3));
        for _ in 0..2_000 {
            let input = one.input(&seeds);
            assert_eq!(input, other.input(&seeds));
            assert!(input.len() <= INPUT_LEN_MAX);
        }
        assert!(Mutator::new(1).input(&[]).len() <= INPUT_LEN_MAX);
    }
}
