//! The commands of bpf(2) that aya has no safe form for: the update of a link that names the old program, what a link
//! is, and maps of values whose size is known when they are met.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_UPDATE: libc::c_int = 29;
const LINK_TYPE_CGROUP: u32 = 3;
/// The update happens only if the link has the old program.
const F_REPLACE: u32 = 1 << 2;

#[repr(C)]
#[derive(Default)]
struct Lookup {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Get {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct GetInfo {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct Update {
    link: u32,
    new: u32,
    flags: u32,
    old: u32,
}

/// The beginning of what the kernel says of a link.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    /// An interface's index in its first half, or a control group's id.
    place: u64,
    attach: u64,
}

/// What a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: u32,
    /// The program at the hook.
    pub(super) program: u32,
    /// Where it is attached: an interface's index, or a control group's number; 0 where that is gone.
    pub(super) place: u64,
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes have the layout of their command, as the kernel's header gives it, and are followed by no
    // more than their own size; the buffers that they name are alive and as large as the command wants.
    #[expect(unsafe_code, reason = "these commands have no safe form")]
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            std::mem::size_of::<T>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

/// Opens what is pinned there.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Get {
        path: path.as_ptr() as u64,
        ..Get::default()
    };
    let fd = bpf(OBJ_GET, &mut attributes)?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for this process, and nobody else knows its number.
    #[expect(unsafe_code, reason = "a descriptor that a system call made")]
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a link is.
pub(super) fn link(link: impl AsFd) -> io::Result<Link> {
    let mut info = Info::default();
    let mut attributes = GetInfo {
        fd: number(link.as_fd()),
        len: u32::try_from(std::mem::size_of::<Info>()).expect("a few bytes"),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    let [a, b, c, d, ..] = info.place.to_ne_bytes();
    Ok(Link {
        id: info.id,
        program: info.program,
        place: if info.kind == LINK_TYPE_CGROUP {
            info.place
        } else {
            u64::from(u32::from_ne_bytes([a, b, c, d]))
        },
    })
}

/// Puts a program at a link's hook in place of another, which must be there.
pub(super) fn update(link: impl AsFd, new: impl AsFd, old: impl AsFd) -> io::Result<()> {
    let mut attributes = Update {
        link: number(link.as_fd()),
        new: number(new.as_fd()),
        flags: F_REPLACE,
        old: number(old.as_fd()),
    };
    bpf(LINK_UPDATE, &mut attributes).map(drop)
}

/// Reads a value into a buffer that must be as large as the map's values are: for maps that have one for each
/// processor, all of them.
pub(super) fn lookup(map: impl AsFd, key: u32, value: &mut [u64]) -> io::Result<()> {
    let mut attributes = Lookup {
        map: number(map.as_fd()),
        key: std::ptr::from_ref(&key) as u64,
        value: value.as_mut_ptr() as u64,
        ..Lookup::default()
    };
    bpf(MAP_LOOKUP_ELEM, &mut attributes).map(drop)
}
