//! Packets that are sent through a program to see whether it does with them what it should.

use serde::{Deserialize, Serialize};

use super::Hook;

/// A packet and what the program should say to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Probe {
    /// What it shows, for people.
    pub name: String,
    /// The program that it is sent through.
    pub program: String,
    /// The frame from its Ethernet header on, in hexadecimal digits.
    pub packet: String,
    /// What the program returns.
    pub returns: i32,
    /// The frame that the program leaves, in hexadecimal digits, if that is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl Probe {
    /// Least and most bytes of a frame: an Ethernet header, and what fits into a page with what the kernel adds.
    pub const PACKET_BYTES: (usize, usize) = (14, 3_072);

    /// A frame's bytes; blanks between digits say nothing.
    ///
    /// # Errors
    /// What it is instead.
    pub fn bytes(digits: &str) -> Result<Vec<u8>, String> {
        let digits: Vec<u32> = digits
            .chars()
            .filter(|c| !c.is_ascii_whitespace())
            .map(|c| {
                c.to_digit(16)
                    .ok_or_else(|| format!("{c:?} is no hexadecimal digit"))
            })
            .collect::<Result<_, _>>()?;
        if !digits.len().is_multiple_of(2) {
            return Err(format!("{} digits are no whole bytes", digits.len()));
        }
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap_or_default())
            .collect();
        let (min, max) = Self::PACKET_BYTES;
        if !(min..=max).contains(&bytes.len()) {
            return Err(format!("it has {} bytes; {min} to {max}", bytes.len()));
        }
        Ok(bytes)
    }
}

impl Hook {
    /// The names of what programs there return; none where the kernel sends nothing through them by itself
    /// (BPF_PROG_TEST_RUN).
    pub const fn verdicts(self) -> &'static [(&'static str, i32)] {
        match self {
            Self::Xdp => &[
                ("aborted", 0),
                ("drop", 1),
                ("pass", 2),
                ("tx", 3),
                ("redirect", 4),
            ],
            Self::TcxIngress | Self::TcxEgress => &[("next", -1), ("pass", 0), ("drop", 2), ("redirect", 7)],
            Self::CgroupSkbIngress | Self::CgroupSkbEgress => &[("drop", 0), ("pass", 1)],
            _ => &[],
        }
    }

    /// What a program there returned, in words.
    pub fn verdict(self, returned: i32) -> String {
        let known = self.verdicts().iter().find(|(_, number)| *number == returned);
        known.map_or_else(
            || returned.to_string(),
            |(name, _)| format!("{name} ({returned})"),
        )
    }
}
