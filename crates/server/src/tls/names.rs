//! What a machine is called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use rustls_pki_types::DnsName;

/// Where this machine's host name stands.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";
/// Addresses for documentation (RFC 5737, RFC 3849), where nobody is: the way there tells this machine's own address.
const ELSEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// Any port: nothing is sent.
const PORT: u16 = 9;

/// Names and addresses of a server that listens there: those that are told, and those that are found out.
pub(super) fn names(listens: IpAddr, told: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    let mut add = |name: String| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    told.iter().cloned().for_each(&mut add);
    if !listens.is_loopback() {
        let host = std::fs::read_to_string(HOST_NAME_FILE).unwrap_or_default();
        // Some machines have a name that no certificate can carry.
        if let Ok(host) = DnsName::try_from(host.trim()) {
            add(host.as_ref().to_owned());
        }
    }
    if listens.is_unspecified() {
        ELSEWHERE
            .into_iter()
            .filter_map(towards)
            .map(|own| own.to_string())
            .for_each(&mut add);
    } else {
        add(listens.to_string());
    }
    if listens.is_unspecified() || listens.is_loopback() {
        ["localhost", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .into_iter()
            .for_each(&mut add);
    }
    names
}

/// The address that packets to another one would come from. None is sent.
fn towards(other: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match other {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((other, PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_loopback_is_named_by_loopback_alone() {
        let found = names(
            Ipv4Addr::LOCALHOST.into(),
            &["api.test".to_owned(), "localhost".to_owned()],
        );
        assert_eq!(found, ["api.test", "localhost", "127.0.0.1", "::1"]);
    }

    #[test]
    fn a_server_that_listens_everywhere_is_found_on_loopback_too_and_one_elsewhere_is_not() {
        let found = names(Ipv4Addr::UNSPECIFIED.into(), &[]);
        assert!(
            found.contains(&"localhost".to_owned()) && !found.contains(&"0.0.0.0".to_owned()),
            "{found:?}"
        );
        let found = names(Ipv4Addr::new(10, 0, 0, 7).into(), &[]);
        assert!(
            found.contains(&"10.0.0.7".to_owned()) && !found.contains(&"127.0.0.1".to_owned()),
            "{found:?}"
        );
    }
}
