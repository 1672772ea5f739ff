//! A program and the hook that it is for: attached once, and from then on swapped by updates of the hook's link.

use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use aya::programs::{ProgramError, ProgramInfo};
use aya_obj::generated::bpf_attach_type::{self, *};
use aya_obj::generated::{BPF_F_AFTER, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
use hotswap_package::{Attached, Ebpf, Hook, XdpMode};

use super::pins::Module;
use super::sys;
use super::{probe, told, tracepoint};

/// Where a program is attached on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Interface(String),
    Cgroup(PathBuf),
    Tracepoint(String),
}

impl Place {
    /// Whether this node has it.
    pub(super) fn exists(&self) -> Result<(), String> {
        match self {
            Self::Tracepoint(name) => tracepoint::exists(name),
            _ => self.number().map(drop),
        }
    }

    /// The kernel's number of it now; tracepoints have none that links tell.
    pub(super) fn number(&self) -> Result<u64, String> {
        let name = match self {
            Self::Interface(name) => name,
            Self::Tracepoint(_) => return Ok(0),
            Self::Cgroup(path) => {
                let group = fs::metadata(path);
                let problem = |error| format!("the control group {} can't be used: {error}", path.display());
                return Ok(group.map_err(problem)?.ino());
            }
        };
        // Any socket can be asked.
        let asked = UdpSocket::bind(("127.0.0.1", 0))
            .and_then(|socket| Ok(rustix::net::netdevice::name_to_index(&socket, name)?));
        asked.map(u64::from).map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => format!("this node has no interface {name}"),
            _ => format!("the interface {name} can't be found: {error}"),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interface(name) | Self::Tracepoint(name) => f.write_str(name),
            Self::Cgroup(path) => path.display().fmt(f),
        }
    }
}

/// The kernel's number of a kind of hook.
pub(super) const fn attach_type(hook: Hook) -> bpf_attach_type {
    match hook {
        Hook::Xdp => BPF_XDP,
        Hook::TcxIngress => BPF_TCX_INGRESS,
        Hook::TcxEgress => BPF_TCX_EGRESS,
        Hook::CgroupSkbIngress => BPF_CGROUP_INET_INGRESS,
        Hook::CgroupSkbEgress => BPF_CGROUP_INET_EGRESS,
        Hook::CgroupConnect4 => BPF_CGROUP_INET4_CONNECT,
        Hook::CgroupConnect6 => BPF_CGROUP_INET6_CONNECT,
        Hook::CgroupBind4 => BPF_CGROUP_INET4_BIND,
        Hook::CgroupBind6 => BPF_CGROUP_INET6_BIND,
        Hook::CgroupSendmsg4 => BPF_CGROUP_UDP4_SENDMSG,
        Hook::CgroupSendmsg6 => BPF_CGROUP_UDP6_SENDMSG,
        Hook::CgroupRecvmsg4 => BPF_CGROUP_UDP4_RECVMSG,
        Hook::CgroupRecvmsg6 => BPF_CGROUP_UDP6_RECVMSG,
        Hook::CgroupGetpeername4 => BPF_CGROUP_INET4_GETPEERNAME,
        Hook::CgroupGetpeername6 => BPF_CGROUP_INET6_GETPEERNAME,
        Hook::CgroupGetsockname4 => BPF_CGROUP_INET4_GETSOCKNAME,
        Hook::CgroupGetsockname6 => BPF_CGROUP_INET6_GETSOCKNAME,
        Hook::CgroupSockCreate => BPF_CGROUP_INET_SOCK_CREATE,
        Hook::CgroupSockRelease => BPF_CGROUP_INET_SOCK_RELEASE,
        Hook::CgroupPostBind4 => BPF_CGROUP_INET4_POST_BIND,
        Hook::CgroupPostBind6 => BPF_CGROUP_INET6_POST_BIND,
        Hook::CgroupSockOps => BPF_CGROUP_SOCK_OPS,
        Hook::Tracepoint => BPF_PERF_EVENT,
        Hook::RawTracepoint | Hook::TpBtf => BPF_TRACE_RAW_TP,
    }
}

/// A loaded program with its place.
#[derive(Debug)]
pub(super) struct Hooked {
    pub(super) attached: Attached,
    pub(super) place: Place,
    /// The kernel's number of the program.
    pub(super) id: u32,
    fd: OwnedFd,
    pin: PathBuf,
}

/// How a swap went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swap {
    /// The program was at the hook already.
    Was,
    /// It took another one's place in one step.
    Updated,
    /// It was there before the other one left: for a moment both were.
    Overlapped,
    /// The hook was free, or elsewhere.
    Attached,
}

impl Hooked {
    /// A program that is pinned.
    pub(super) fn open(attached: &Attached, place: Place, pin: PathBuf) -> Result<Self, String> {
        let info = ProgramInfo::from_pin(&pin).map_err(|error| told(&error))?;
        Ok(Self {
            attached: attached.clone(),
            place,
            id: info.id(),
            fd: sys::get(&pin).map_err(|error| error.to_string())?,
            pin,
        })
    }

    /// What the kernel says of the program now.
    pub(super) fn info(&self) -> Result<ProgramInfo, ProgramError> {
        ProgramInfo::from_pin(&self.pin)
    }

    /// Sends the manifest's probes through the program.
    pub(super) fn probe(&self, ebpf: &Ebpf) -> Result<(), String> {
        probe::run(ebpf, &self.attached, &self.fd)
    }

    /// Whether the program is at its hook.
    pub(super) fn is_in_place(&self, module: &Module) -> Result<bool, String> {
        match sys::get(&module.link(&self.attached.name)).and_then(sys::link) {
            Ok(link) => Ok(link.program == self.id && self.is_at(&link, self.place.number()?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether a link is at the hook that this program is for: the same place, and the same kind of hook there.
    fn is_at(&self, link: &sys::Link, place: u64) -> bool {
        link.place == place && link.attach == Some(attach_type(self.attached.attach) as u32)
    }

    /// Puts the program at its hook, in place of the module's own that is there.
    pub(super) fn swap(&self, module: &Module) -> Result<Swap, String> {
        let path = module.link(&self.attached.name);
        let place = self.place.number()?;
        let held = match sys::get(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("the link {} can't be opened: {error}", path.display())),
            Ok(fd) => Some((sys::link(&fd).map_err(|error| error.to_string())?, fd)),
        };
        match held {
            Some((link, _)) if self.is_at(&link, place) && link.program == self.id => Ok(Swap::Was),
            Some((link, fd)) if self.is_at(&link, place) && self.attached.attach.swaps_in_one_step() => {
                let old = module.find(link.program).map_err(|error| error.to_string())?;
                let old = old.ok_or_else(|| {
                    format!(
                        "the program {} is at {} of {}, and it is none of this module's: somebody else put it there",
                        link.program, self.attached.attach, self.place
                    )
                })?;
                sys::update(&fd, &self.fd, &old).map_err(|error| self.refused(&error, "the swap at"))?;
                Ok(Swap::Updated)
            }
            // Gone with its interface, at the hook of another configuration or version, or one that can't be updated:
            // the new one first, so that there is no gap.
            held => {
                let next = module.next_link(&self.attached.name);
                let _ = fs::remove_file(&next);
                let link = self
                    .attach(place)
                    .map_err(|error| self.refused(&error, "attaching to"))?;
                let overlaps = held.as_ref().is_some_and(|(link, _)| self.is_at(link, place));
                let kept = sys::pin(&link, &next).and_then(|()| fs::rename(&next, &path));
                drop(held);
                kept.map_err(|error| {
                    let _ = fs::remove_file(&next);
                    format!("the link can't be kept: {error}")
                })?;
                Ok(if overlaps {
                    Swap::Overlapped
                } else {
                    Swap::Attached
                })
            }
        }
    }

    fn refused(&self, error: &io::Error, what: &str) -> String {
        let (attach, place) = (self.attached.attach, &self.place);
        let hint = match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => "; another program is there, which has to leave first",
            Some(libc::EPERM) => {
                "; another program took the place meanwhile, or a privilege lacks (CAP_BPF, CAP_NET_ADMIN)"
            }
            Some(libc::EACCES) => "; a privilege lacks (CAP_PERFMON)",
            Some(libc::EOPNOTSUPP) => "; the interface's driver has no XDP: try mode = \"generic\"",
            _ => "",
        };
        format!("{what} {attach} of {place} failed: {error}{hint}")
    }

    fn attach(&self, place: u64) -> io::Result<OwnedFd> {
        let kind = attach_type(self.attached.attach) as u32;
        match &self.place {
            Place::Interface(_) => {
                let index = u32::try_from(place).map_err(io::Error::other)?;
                let flags = match (self.attached.attach, self.attached.mode) {
                    (Hook::Xdp, XdpMode::Any) => 0,
                    (Hook::Xdp, XdpMode::Driver) => XDP_FLAGS_DRV_MODE,
                    (Hook::Xdp, XdpMode::Generic) => XDP_FLAGS_SKB_MODE,
                    // Behind all that is at a tcx hook already.
                    _ => BPF_F_AFTER,
                };
                sys::attach(&self.fd, sys::Target::Interface(index), kind, flags)
            }
            Place::Cgroup(path) => {
                // Links on control groups are always beside those of others, and take no flags.
                let folder = File::open(path)?;
                sys::attach(&self.fd, sys::Target::Open(folder.as_fd()), kind, 0)
            }
            Place::Tracepoint(name) => match self.attached.attach {
                Hook::Tracepoint => {
                    let event = sys::tracepoint(tracepoint::id(name)?)?;
                    sys::attach(&self.fd, sys::Target::Open(event.as_fd()), kind, 0)
                }
                Hook::RawTracepoint => sys::attach_raw(&self.fd, Some(name)),
                _ => sys::attach_raw(&self.fd, None),
            },
        }
    }
}
