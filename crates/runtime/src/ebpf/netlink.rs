//! How XDP is attached to an interface, which its link doesn't tell.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// Room for all that the kernel says of an interface.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a message's header is, and what says which interface is meant.
const HEADER_LEN: usize = 16;
const INTERFACE_LEN: usize = 16;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
/// What an attribute's kind has beside its number.
const KIND_MASK: u16 = 0x3fff;

/// Where XDP's programs of an interface run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// In the driver.
    Driver,
    /// Behind it.
    Generic,
    /// Nowhere, elsewhere, or in several places.
    Other,
}

impl std::fmt::Display for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Driver => "driver",
            Self::Generic => "generic",
            Self::Other => "another",
        })
    }
}

/// Asks the kernel for it.
pub(super) fn xdp(interface: u32) -> io::Result<Attached> {
    // The first protocol of this family is that of interfaces.
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    send(&socket, &request(interface), SendFlags::empty())?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let (len, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    said(&answer[..len]).ok_or_else(|| io::Error::other("the kernel doesn't say how XDP is attached"))
}

fn request(interface: u32) -> Vec<u8> {
    let len = u32::try_from(HEADER_LEN + INTERFACE_LEN).expect("a few bytes");
    let mut request = len.to_ne_bytes().to_vec();
    request.extend(RTM_GETLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    // Its number, who asks, and of what family and kind the interface is: all zeros.
    request.extend([0; 12]);
    request.extend(interface.to_ne_bytes());
    request.extend([0; 8]);
    request
}

fn said(answer: &[u8]) -> Option<Attached> {
    if number(answer, 4)? != RTM_NEWLINK {
        return None;
    }
    let all = answer.get(HEADER_LEN + INTERFACE_LEN..)?;
    let how = attribute(attribute(all, IFLA_XDP)?, IFLA_XDP_ATTACHED)?;
    Some(match how.first()? {
        1 => Attached::Driver,
        2 => Attached::Generic,
        _ => Attached::Other,
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// What an attribute among others holds.
fn attribute(mut all: &[u8], wanted: u16) -> Option<&[u8]> {
    while let (Some(len), Some(kind)) = (number(all, 0), number(all, 2)) {
        let len = usize::from(len);
        if kind & KIND_MASK == wanted {
            return all.get(4..len);
        }
        all = all.get(len.max(4).next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_without_xdp_says_so_and_one_that_is_not_there_is_an_error() {
        // The first one is loopback.
        assert_eq!(xdp(1).unwrap(), Attached::Other);
        assert!(xdp(u32::MAX >> 1).is_err());
    }

    #[test]
    fn an_answer_that_ends_early_says_nothing() {
        let mut answer = vec![0; HEADER_LEN + INTERFACE_LEN];
        answer[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        for (len, kind) in [(8_u16, 1_u16), (12, IFLA_XDP), (5, IFLA_XDP_ATTACHED)] {
            answer.extend(len.to_ne_bytes());
            answer.extend(kind.to_ne_bytes());
            if len == 8 {
                answer.extend([0; 4]);
            }
        }
        answer.extend([2, 0, 0, 0]);
        assert_eq!(said(&answer), Some(Attached::Generic));
        for len in 0..answer.len() - 3 {
            assert_eq!(said(&answer[..len]), None);
        }
    }
}
