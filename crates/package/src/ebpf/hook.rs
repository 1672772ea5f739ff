//! The kinds of hooks: their names, where they are, and what an object's program for them is called.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::KernelRelease;

/// A kind of hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// Packets that an interface receives, before anything else sees them.
    Xdp,
    /// Packets that an interface has received.
    TcxIngress,
    /// Packets that an interface is about to send.
    TcxEgress,
    /// Packets that a control group's sockets receive.
    CgroupSkbIngress,
    /// Packets that a control group's sockets send.
    CgroupSkbEgress,
    /// IPv4 sockets of a control group that connect: whether they may, and where to.
    CgroupConnect4,
    /// The same for IPv6.
    CgroupConnect6,
    /// IPv4 sockets that are bound to an address: whether they may be, and to which.
    CgroupBind4,
    /// The same for IPv6.
    CgroupBind6,
    /// IPv4 datagrams that unconnected sockets send: whether they may, and where to.
    CgroupSendmsg4,
    /// The same for IPv6.
    CgroupSendmsg6,
    /// Who IPv4 datagrams are said to be from.
    CgroupRecvmsg4,
    /// The same for IPv6.
    CgroupRecvmsg6,
    /// Who IPv4 sockets are said to be connected to.
    CgroupGetpeername4,
    /// The same for IPv6.
    CgroupGetpeername6,
    /// What IPv4 sockets are said to be bound to.
    CgroupGetsockname4,
    /// The same for IPv6.
    CgroupGetsockname6,
    /// Sockets that are made: whether they may be.
    CgroupSockCreate,
    /// Sockets that are closed.
    CgroupSockRelease,
    /// IPv4 sockets that were bound: whether they may stay so.
    CgroupPostBind4,
    /// The same for IPv6.
    CgroupPostBind6,
    /// Events in the life of TCP connections.
    CgroupSockOps,
    /// A place in the kernel that is meant to be looked at, with the fields that it documents.
    Tracepoint,
    /// The same with the arguments as the kernel has them.
    RawTracepoint,
    /// The same with arguments whose types the verifier knows.
    TpBtf,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::Xdp,
        Self::TcxIngress,
        Self::TcxEgress,
        Self::CgroupSkbIngress,
        Self::CgroupSkbEgress,
        Self::CgroupConnect4,
        Self::CgroupConnect6,
        Self::CgroupBind4,
        Self::CgroupBind6,
        Self::CgroupSendmsg4,
        Self::CgroupSendmsg6,
        Self::CgroupRecvmsg4,
        Self::CgroupRecvmsg6,
        Self::CgroupGetpeername4,
        Self::CgroupGetpeername6,
        Self::CgroupGetsockname4,
        Self::CgroupGetsockname6,
        Self::CgroupSockCreate,
        Self::CgroupSockRelease,
        Self::CgroupPostBind4,
        Self::CgroupPostBind6,
        Self::CgroupSockOps,
        Self::Tracepoint,
        Self::RawTracepoint,
        Self::TpBtf,
    ];

    /// The name in manifests, and the section that the program has in the object.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Xdp => ("xdp", "xdp"),
            Self::TcxIngress => ("tcx-ingress", "classifier"),
            Self::TcxEgress => ("tcx-egress", "classifier"),
            Self::CgroupSkbIngress => ("cgroup-skb-ingress", "cgroup_skb/ingress"),
            Self::CgroupSkbEgress => ("cgroup-skb-egress", "cgroup_skb/egress"),
            Self::CgroupConnect4 => ("cgroup-connect4", "cgroup/connect4"),
            Self::CgroupConnect6 => ("cgroup-connect6", "cgroup/connect6"),
            Self::CgroupBind4 => ("cgroup-bind4", "cgroup/bind4"),
            Self::CgroupBind6 => ("cgroup-bind6", "cgroup/bind6"),
            Self::CgroupSendmsg4 => ("cgroup-sendmsg4", "cgroup/sendmsg4"),
            Self::CgroupSendmsg6 => ("cgroup-sendmsg6", "cgroup/sendmsg6"),
            Self::CgroupRecvmsg4 => ("cgroup-recvmsg4", "cgroup/recvmsg4"),
            Self::CgroupRecvmsg6 => ("cgroup-recvmsg6", "cgroup/recvmsg6"),
            Self::CgroupGetpeername4 => ("cgroup-getpeername4", "cgroup/getpeername4"),
            Self::CgroupGetpeername6 => ("cgroup-getpeername6", "cgroup/getpeername6"),
            Self::CgroupGetsockname4 => ("cgroup-getsockname4", "cgroup/getsockname4"),
            Self::CgroupGetsockname6 => ("cgroup-getsockname6", "cgroup/getsockname6"),
            Self::CgroupSockCreate => ("cgroup-sock-create", "cgroup/sock_create"),
            Self::CgroupSockRelease => ("cgroup-sock-release", "cgroup/sock_release"),
            Self::CgroupPostBind4 => ("cgroup-post-bind4", "cgroup/post_bind4"),
            Self::CgroupPostBind6 => ("cgroup-post-bind6", "cgroup/post_bind6"),
            Self::CgroupSockOps => ("cgroup-sock-ops", "sockops"),
            Self::Tracepoint => ("tracepoint", "tracepoint"),
            Self::RawTracepoint => ("raw-tracepoint", "raw_tracepoint"),
            Self::TpBtf => ("tp-btf", "tp_btf"),
        }
    }

    /// The name in manifests.
    pub const fn as_str(self) -> &'static str {
        self.names().0
    }

    /// The section that the program has in the object.
    pub const fn section(self) -> &'static str {
        self.names().1
    }

    /// What it is on.
    pub const fn on(self) -> On {
        match self {
            Self::Xdp | Self::TcxIngress | Self::TcxEgress => On::Interface,
            Self::Tracepoint | Self::RawTracepoint | Self::TpBtf => On::Tracepoint,
            _ => On::Cgroup,
        }
    }

    /// What it may be on.
    pub const fn example(self) -> &'static str {
        match (self, self.on()) {
            (_, On::Interface) => "\"eth0\" or \"$UPLINK\"",
            (_, On::Cgroup) => "\"/sys/fs/cgroup/system.slice\"",
            (Self::Tracepoint, On::Tracepoint) => "\"sched:sched_process_exec\"",
            (_, On::Tracepoint) => "\"sched_process_exec\"",
        }
    }

    /// Whether one program takes another's place there in one step. Where not, the new one is attached before the
    /// former one leaves: both see what happens in between.
    pub const fn swaps_in_one_step(self) -> bool {
        !matches!(self.on(), On::Tracepoint)
    }

    /// The first release of the kernel that has the hook, with links that can be pinned.
    pub const fn kernel(self) -> KernelRelease {
        match self {
            Self::Xdp => KernelRelease(5, 9),
            Self::TcxIngress | Self::TcxEgress => KernelRelease(6, 6),
            Self::CgroupGetpeername4
            | Self::CgroupGetpeername6
            | Self::CgroupGetsockname4
            | Self::CgroupGetsockname6 => KernelRelease(5, 8),
            Self::CgroupSockRelease => KernelRelease(5, 9),
            Self::Tracepoint => KernelRelease(5, 15),
            Self::RawTracepoint | Self::TpBtf => KernelRelease(5, 8),
            _ => KernelRelease(5, 7),
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a hook is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// A network interface.
    Interface,
    /// A control group (version 2).
    Cgroup,
    /// A tracepoint of the kernel.
    Tracepoint,
}

impl On {
    /// The manifest's key for which one.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Cgroup => "cgroup",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// How XDP is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    /// In the driver where it can, else behind it.
    #[default]
    Any,
    /// In the driver, or not at all.
    Driver,
    /// Behind the driver: works on every interface, and is slower.
    Generic,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_manifests_have() {
        for hook in Hook::ALL {
            let name = serde_json::to_value(hook).unwrap();
            assert_eq!(name, hook.as_str());
        }
    }
}
