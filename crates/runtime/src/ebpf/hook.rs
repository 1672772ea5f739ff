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
use super::{netlink, probe, told, tracepoint};

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

/// A swap that was made, and what takes it back. As long as it is there, so is the link that it did without.
#[derive(Debug)]
pub(super) struct Swapped {
    pub(super) how: Swap,
    undo: Undo,
}

#[derive(Debug, Default)]
struct Undo {
    /// A link, and the program that it had.
    updated: Option<(OwnedFd, OwnedFd)>,
    /// What it was called.
    renamed: Option<String>,
    /// The link that the program had elsewhere, or that could not be updated.
    own: Option<OwnedFd>,
    /// The link is a new one.
    is_new: bool,
}

impl Swapped {
    fn was() -> Self {
        Self {
            how: Swap::Was,
            undo: Undo::default(),
        }
    }
}

/// A link of the module's.
#[derive(Debug)]
struct Held {
    name: String,
    link: sys::Link,
    fd: OwnedFd,
}

impl Held {
    /// None where there is none of that name.
    fn open(module: &Module, name: &str) -> Result<Option<Self>, String> {
        let path = module.link(name);
        match sys::get(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("the link {} can't be opened: {error}", path.display())),
            Ok(fd) => Ok(Some(Self {
                name: name.to_owned(),
                link: sys::link(&fd).map_err(|error| error.to_string())?,
                fd,
            })),
        }
    }
}

/// Pins a link as a program's own, in place of the one that it has.
fn keep(module: &Module, name: &str, link: &OwnedFd) -> Result<(), String> {
    let next = module.next_link(name);
    let _ = fs::remove_file(&next);
    let kept = sys::pin(link, &next).and_then(|()| fs::rename(&next, module.link(name)));
    kept.map_err(|error| {
        let _ = fs::remove_file(&next);
        format!("the link can't be kept: {error}")
    })
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

    /// Puts the program at its hook, in place of the module's own that is there. `version` is all that its version has.
    pub(super) fn swap(&self, module: &Module, version: &[Self]) -> Result<Swapped, String> {
        let place = self.place.number()?;
        let own = Held::open(module, &self.attached.name)?;
        let is_there = own.as_ref().is_some_and(|held| self.is_at(&held.link, place));
        match own {
            Some(held) if is_there && held.link.program == self.id => Ok(Swapped::was()),
            Some(held) if is_there && self.attached.attach.swaps_in_one_step() => {
                self.update(module, place, held, None)
            }
            own => match self.renamed(module, place, version)? {
                Some(former) => self.update(module, place, former, own),
                None => self.begin(module, place, own),
            },
        }
    }

    /// The link that is at this hook for a program of the former version that this one calls otherwise.
    fn renamed(&self, module: &Module, place: u64, version: &[Self]) -> Result<Option<Held>, String> {
        if !self.attached.attach.swaps_in_one_step() {
            return Ok(None);
        }
        for name in module.links() {
            if version.iter().any(|hook| hook.attached.name == name) {
                continue;
            }
            let held = Held::open(module, &name)?;
            if let Some(held) = held.filter(|held| self.is_at(&held.link, place)) {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// Takes the place of a program in its link, which is this program's own from then on. `own` is the link that it had
    /// elsewhere.
    fn update(&self, module: &Module, place: u64, held: Held, own: Option<Held>) -> Result<Swapped, String> {
        let program = held.link.program;
        let old = module.find(program).map_err(|error| error.to_string())?;
        let old = old.ok_or_else(|| {
            format!(
                "the program {program} is at {} of {}, and it is none of this module's: somebody else put it there",
                self.attached.attach, self.place
            )
        })?;
        self.fits_mode(place)?;
        sys::update(&held.fd, &self.fd, &old).map_err(|error| self.refused(&error, "the swap at"))?;
        let name = &self.attached.name;
        let mut swapped = Swapped {
            how: Swap::Updated,
            undo: Undo {
                updated: Some((held.fd, old)),
                renamed: None,
                own: own.map(|own| own.fd),
                is_new: false,
            },
        };
        if held.name != *name {
            if let Err(error) = fs::rename(module.link(&held.name), module.link(name)) {
                let _ = self.undo(module, swapped);
                return Err(format!(
                    "the link of {} can't be kept as {name}: {error}",
                    held.name
                ));
            }
            swapped.undo.renamed = Some(held.name);
        }
        Ok(swapped)
    }

    /// A link goes on as it began: an update changes nothing in where its programs run.
    fn fits_mode(&self, place: u64) -> Result<(), String> {
        let wanted = match self.attached.mode {
            XdpMode::Driver => netlink::Attached::Driver,
            XdpMode::Generic => netlink::Attached::Generic,
            XdpMode::Any => return Ok(()),
        };
        if self.attached.attach != Hook::Xdp {
            return Ok(());
        }
        let is = u32::try_from(place)
            .map_err(io::Error::other)
            .and_then(netlink::xdp);
        let is =
            is.map_err(|error| format!("how XDP is attached to {} can't be told: {error}", self.place))?;
        match is {
            netlink::Attached::Other => Ok(()),
            is if is == wanted => Ok(()),
            is => Err(format!(
                "xdp of {} is attached in mode {is}, which a swap can't change to {wanted}: leave the mode as it is, or \
                 undeploy the module first",
                self.place
            )),
        }
    }

    /// Attaches the program where no link of its own is. One that is gone with its interface, at the hook of another
    /// configuration or version, or that can't be updated, goes afterwards, so that there is no gap.
    fn begin(&self, module: &Module, place: u64, own: Option<Held>) -> Result<Swapped, String> {
        let name = &self.attached.name;
        let link = self
            .attach(place)
            .map_err(|error| self.refused(&error, "attaching to"))?;
        keep(module, name, &link)?;
        let overlaps = own.as_ref().is_some_and(|held| self.is_at(&held.link, place));
        Ok(Swapped {
            how: if overlaps {
                Swap::Overlapped
            } else {
                Swap::Attached
            },
            undo: Undo {
                updated: None,
                renamed: None,
                own: own.map(|own| own.fd),
                is_new: true,
            },
        })
    }

    /// Takes a swap back: what was in its place before is there again.
    pub(super) fn undo(&self, module: &Module, swapped: Swapped) -> Result<(), String> {
        let Undo {
            updated,
            renamed,
            own,
            is_new,
        } = swapped.undo;
        let name = &self.attached.name;
        if let Some((link, old)) = updated {
            sys::update(&link, &old, &self.fd).map_err(|error| self.refused(&error, "the way back at"))?;
        }
        if let Some(former) = renamed {
            fs::rename(module.link(name), module.link(&former)).map_err(|error| error.to_string())?;
        }
        match own {
            Some(link) => keep(module, name, &link),
            None if is_new => fs::remove_file(module.link(name)).map_err(|error| error.to_string()),
            None => Ok(()),
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
