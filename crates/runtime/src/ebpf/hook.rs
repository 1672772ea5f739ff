//! A program and the hook that it is for: attached once, and from then on swapped by updates of the hook's link.

use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::programs::cgroup_skb::CgroupSkbAttachType;
use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::xdp::XdpMode as Mode;
use aya::programs::{
    CgroupAttachMode, CgroupSkb, LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType, Xdp,
};
use aya_obj::programs::XdpAttachType;
use hotswap_package::{Attached, Hook, XdpMode};

use super::pins::Module;
use super::sys;
use super::told;

/// Where a program is attached on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Interface(String),
    Cgroup(PathBuf),
}

impl Place {
    /// The kernel's number of it now.
    pub(super) fn number(&self) -> Result<u64, String> {
        let name = match self {
            Self::Interface(name) => name,
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
            Self::Interface(name) => f.write_str(name),
            Self::Cgroup(path) => path.display().fmt(f),
        }
    }
}

/// A loaded program.
#[derive(Debug)]
enum Program {
    Xdp(Xdp),
    Tcx(SchedClassifier),
    CgroupSkb(CgroupSkb),
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

    /// Whether the program is at its hook.
    pub(super) fn is_in_place(&self, module: &Module) -> Result<bool, String> {
        match sys::get(&module.link(&self.attached.name)).and_then(sys::link) {
            Ok(link) => Ok(link.program == self.id && link.place == self.place.number()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.to_string()),
        }
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
            Some((link, _)) if link.place == place && link.program == self.id => Ok(Swap::Was),
            Some((link, fd)) if link.place == place => {
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
            // Gone with its interface, or at the place of another configuration: the new place first.
            held => {
                let next = module.next_link(&self.attached.name);
                let _ = fs::remove_file(&next);
                let link = self.attach().map_err(|error| match &error {
                    ProgramError::SyscallError(call) => self.refused(&call.io_error, "attaching to"),
                    error => format!(
                        "attaching to {} of {} failed: {}",
                        self.attached.attach,
                        self.place,
                        told(error)
                    ),
                })?;
                let pinned = link.pin(&next).map_err(|error| told(&error))?;
                drop(held);
                fs::rename(&next, &path).map_err(|error| format!("the link can't be kept: {error}"))?;
                drop(pinned);
                Ok(Swap::Attached)
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
            Some(libc::EOPNOTSUPP) => "; the interface's driver has no XDP: try mode = \"generic\"",
            _ => "",
        };
        format!("{what} {attach} of {place} failed: {error}{hint}")
    }

    fn attach(&self) -> Result<FdLink, ProgramError> {
        let mut program = self.program()?;
        match (&mut program, &self.place) {
            (Program::Xdp(xdp), Place::Interface(name)) => {
                let mode = match self.attached.mode {
                    XdpMode::Any => Mode::Default,
                    XdpMode::Driver => Mode::Driver,
                    XdpMode::Generic => Mode::Skb,
                };
                let id = xdp.attach(name, mode)?;
                Ok(xdp.take_link(id)?.try_into().map_err(io::Error::other)?)
            }
            (Program::Tcx(tcx), Place::Interface(name)) => {
                let side = match self.attached.attach {
                    Hook::TcxEgress => TcAttachType::Egress,
                    _ => TcAttachType::Ingress,
                };
                let id =
                    tcx.attach_with_options(name, side, TcAttachOptions::TcxOrder(LinkOrder::default()))?;
                Ok(tcx.take_link(id)?.try_into().map_err(io::Error::other)?)
            }
            (Program::CgroupSkb(skb), Place::Cgroup(path)) => {
                // Links on control groups are always beside those of others, and take no flags.
                let id = skb.attach(File::open(path)?, self.side(), CgroupAttachMode::Single)?;
                Ok(skb.take_link(id)?.try_into().map_err(io::Error::other)?)
            }
            _ => Err(ProgramError::UnexpectedProgramType),
        }
    }

    fn side(&self) -> CgroupSkbAttachType {
        match self.attached.attach {
            Hook::CgroupSkbEgress => CgroupSkbAttachType::Egress,
            _ => CgroupSkbAttachType::Ingress,
        }
    }

    /// The program in the form that knows how to attach it.
    fn program(&self) -> Result<Program, ProgramError> {
        let pin: &Path = &self.pin;
        Ok(match self.attached.attach {
            Hook::Xdp => Program::Xdp(Xdp::from_pin(pin, XdpAttachType::Interface)?),
            Hook::TcxIngress | Hook::TcxEgress => Program::Tcx(SchedClassifier::from_pin(pin)?),
            Hook::CgroupSkbIngress | Hook::CgroupSkbEgress => {
                Program::CgroupSkb(CgroupSkb::from_pin(pin, self.side())?)
            }
        })
    }
}
