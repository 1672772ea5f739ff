//! The commands of bpf(2) that aya has no safe form for: links of every kind of hook alike, made, pinned and updated with
//! the old program's name; and maps of values whose size is known when they are met.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya_obj::generated::{
    BPF_F_REPLACE, PERF_FLAG_FD_CLOEXEC, bpf_attach_type, bpf_cmd, bpf_link_type, perf_type_id,
};

/// Waits until all that the kernel's readers read before is done with.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

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
struct Create {
    program: u32,
    target: u32,
    attach: u32,
    flags: u32,
    /// What links of one kind or another want; nothing here.
    of_kind: [u64; 4],
}

#[repr(C)]
#[derive(Default)]
struct OpenRaw {
    name: u64,
    program: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    returned: u32,
    input_len: u32,
    output_len: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration_ns: u32,
    /// A context of the caller's own, and where it runs; nothing here.
    context: [u64; 3],
    flags: u32,
    processor: u32,
    batch: u32,
    pad: u32,
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

/// The beginning of what the kernel says of a program.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: u64,
    /// Lengths and places of its code, which isn't asked for, and when it was loaded.
    code: [u64; 4],
    user: u32,
    maps_len: u32,
    maps: u64,
}

/// What a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: u32,
    /// The program at the hook.
    pub(super) program: u32,
    /// Where it is attached: an interface's index, or a control group's number; 0 where that is gone, and for
    /// tracepoints, which have no number.
    pub(super) place: u64,
    /// The kernel's number of the kind of hook; none where the kind of link says no more.
    pub(super) attach: Option<u32>,
}

fn bpf<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes have the layout of their command, as the kernel's header gives it, and are followed by no
    // more than their own size; the buffers that they name are alive and as large as the command wants.
    #[expect(unsafe_code, reason = "these commands have no safe form")]
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
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
    owned(bpf(bpf_cmd::BPF_OBJ_GET, &mut attributes)?)
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
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
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    let [first, second] = halves(info.place);
    let [after, _] = halves(info.attach);
    let is = |kind: bpf_link_type| info.kind == kind as u32;
    let (place, attach) = if is(bpf_link_type::BPF_LINK_TYPE_CGROUP) {
        (info.place, Some(after))
    } else if is(bpf_link_type::BPF_LINK_TYPE_TCX) {
        (first.into(), Some(second))
    } else if is(bpf_link_type::BPF_LINK_TYPE_XDP) {
        (first.into(), Some(bpf_attach_type::BPF_XDP as u32))
    } else if is(bpf_link_type::BPF_LINK_TYPE_PERF_EVENT) {
        (0, Some(bpf_attach_type::BPF_PERF_EVENT as u32))
    } else if is(bpf_link_type::BPF_LINK_TYPE_RAW_TRACEPOINT) {
        (0, Some(bpf_attach_type::BPF_TRACE_RAW_TP as u32))
    } else {
        (first.into(), None)
    };
    Ok(Link {
        id: info.id,
        program: info.program,
        place,
        attach,
    })
}

/// The two numbers that stand one after the other.
/// The kernel's numbers of the maps that a program uses.
pub(super) fn maps_of(program: impl AsFd) -> io::Result<Vec<u32>> {
    let maps_len = program_info(program.as_fd(), &mut [])?;
    let mut maps = vec![0; maps_len];
    let is = program_info(program.as_fd(), &mut maps)?;
    maps.truncate(is);
    Ok(maps)
}

/// Fills in a program's maps, as many as there is room for; how many it has.
fn program_info(program: BorrowedFd<'_>, maps: &mut [u32]) -> io::Result<usize> {
    let mut info = ProgramInfo {
        maps_len: u32::try_from(maps.len()).map_err(io::Error::other)?,
        maps: maps.as_mut_ptr() as u64,
        ..ProgramInfo::default()
    };
    let mut attributes = GetInfo {
        fd: number(program),
        len: u32::try_from(std::mem::size_of::<ProgramInfo>()).expect("a few bytes"),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info.maps_len as usize)
}

fn halves(both: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = both.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// Attaches a program: to an interface by its index, to a control group by its open folder.
pub(super) fn attach(program: impl AsFd, target: Target<'_>, attach: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attributes = Create {
        program: number(program.as_fd()),
        target: match target {
            Target::Interface(index) => index,
            Target::Open(fd) => number(fd),
        },
        attach,
        flags,
        ..Create::default()
    };
    let link = bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes)?;
    owned(link)
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// By its index.
    Interface(u32),
    /// A control group's folder, or an event.
    Open(BorrowedFd<'a>),
}

/// Opens the event that is a tracepoint, by its number.
pub(super) fn tracepoint(id: u64) -> io::Result<OwnedFd> {
    // The first edition of the attributes: kind and size, number, every single one.
    let size = u32::try_from(std::mem::size_of::<[u64; 8]>()).expect("a few bytes");
    let kind = perf_type_id::PERF_TYPE_TRACEPOINT as u64 | (u64::from(size) << 32);
    #[cfg(target_endian = "big")]
    let kind = kind.rotate_left(32);
    let mut attributes = [kind, id, 1, 0, 0, 0, 0, 0];
    // A program at it runs on all processors, whichever the event is of.
    let (any_task, first_cpu, no_group) = (-1, 0, -1);
    // SAFETY: the attributes are as large as they say, and alive.
    #[expect(unsafe_code, reason = "this system call has no safe form")]
    let answer = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_mut_ptr(),
            any_task,
            first_cpu,
            no_group,
            libc::c_ulong::from(PERF_FLAG_FD_CLOEXEC),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    owned(answer)
}

/// Attaches a program to a raw tracepoint; one by BTF was loaded for its own, and is given no name.
pub(super) fn attach_raw(program: impl AsFd, name: Option<&str>) -> io::Result<OwnedFd> {
    let name = name.map(CString::new).transpose()?;
    let mut attributes = OpenRaw {
        name: name.as_ref().map_or(0, |name| name.as_ptr() as u64),
        program: number(program.as_fd()),
        pad: 0,
    };
    owned(bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attributes)?)
}

/// Pins what is open at a path in bpffs where nothing is yet.
pub(super) fn pin(fd: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Get {
        path: path.as_ptr() as u64,
        fd: number(fd.as_fd()),
        ..Get::default()
    };
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// Sends a frame through a program once: what it returned, and how many bytes it left.
pub(super) fn test_run(program: impl AsFd, input: &[u8], output: &mut [u8]) -> io::Result<(i32, usize)> {
    let len = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    let mut attributes = TestRun {
        program: number(program.as_fd()),
        input_len: len(input.len())?,
        output_len: len(output.len())?,
        input: input.as_ptr() as u64,
        output: output.as_mut_ptr() as u64,
        repeat: 1,
        ..TestRun::default()
    };
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok((attributes.returned.cast_signed(), attributes.output_len as usize))
}

/// Puts a program at a link's hook in place of another, which must be there.
pub(super) fn update(link: impl AsFd, new: impl AsFd, old: impl AsFd) -> io::Result<()> {
    let mut attributes = Update {
        link: number(link.as_fd()),
        new: number(new.as_fd()),
        // Only if the link has the old program.
        flags: BPF_F_REPLACE,
        old: number(old.as_fd()),
    };
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Reads a value into a buffer that must be as large as the map's values are: for maps that have one for each
/// processor, all of them.
pub(super) fn lookup(map: impl AsFd, key: u32, value: &mut [u64]) -> io::Result<()> {
    let key = key.to_ne_bytes();
    let mut attributes = of_entry(map, Some(&key), value.as_mut_ptr().cast());
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes).map(drop)
}

/// Reads a value into a buffer that must be as large as the map's values are, as [`lookup`] does.
pub(super) fn lookup_bytes(map: impl AsFd, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let mut attributes = of_entry(map, Some(key), value.as_mut_ptr());
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes).map(drop)
}

/// Sets a value, of the size of the map's.
pub(super) fn set(map: impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attributes = of_entry(map, Some(key), value.as_ptr().cast_mut());
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Removes an entry.
pub(super) fn remove(map: impl AsFd, key: &[u8]) -> io::Result<()> {
    let mut attributes = of_entry(map, Some(key), std::ptr::null_mut());
    bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attributes).map(drop)
}

/// Reads the key that comes after another, or the first one; `false`: there is none.
pub(super) fn next_key(map: impl AsFd, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let mut attributes = of_entry(map, key, next.as_mut_ptr());
    match bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attributes) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn of_entry(map: impl AsFd, key: Option<&[u8]>, value: *mut u8) -> Lookup {
    Lookup {
        map: number(map.as_fd()),
        key: key.map_or(0, |key| key.as_ptr() as u64),
        value: value as u64,
        ..Lookup::default()
    }
}

/// Waits until programs that ran when it was called have ended.
pub(super) fn wait_for_readers() -> io::Result<()> {
    // SAFETY: it takes numbers only, and writes nothing of this process's.
    #[expect(unsafe_code, reason = "this system call has no safe form")]
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Binds the calling thread to a processor.
pub(super) fn run_on(processor: usize) -> io::Result<()> {
    // SAFETY: a set of processors is plain numbers, of which none is a valid one; it is as large as is said.
    #[expect(unsafe_code, reason = "this system call has no safe form")]
    let answer = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if processor >= 8 * std::mem::size_of_val(&set) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, std::mem::size_of_val(&set), &raw const set)
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
