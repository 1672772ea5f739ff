//! From this process to a module's: what happens between fork and exec.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::config::User;

/// The descriptor at which a process finds its listening socket: systemd's.
const SOCKET_FD: i32 = 3;
/// The name that it is told the socket by.
const SOCKET_NAME: &str = "http";
/// `LISTEN_PID=`, and room for the number that is known only after the fork.
const PID_KEY: &[u8] = b"LISTEN_PID=";
const PID_DIGITS_MAX: usize = 11;

/// A process to be started.
#[derive(Debug)]
pub(super) struct Launch {
    /// The executable's file name, in `folder`.
    pub(super) entry: String,
    /// Where it starts. It is entered before privileges are dropped, so nobody else needs to be let in on the way.
    pub(super) folder: PathBuf,
    pub(super) arguments: Vec<String>,
    /// All that it finds in its environment, besides what tells of its socket.
    pub(super) variables: Vec<(String, String)>,
    /// Its listening socket.
    pub(super) socket: OwnedFd,
    /// As whom it runs; `None`: as this process's user.
    pub(super) user: Option<User>,
    /// Whether it gets a network of its own with nothing in it.
    pub(super) own_network: bool,
    pub(super) open_files_max: u64,
    /// Most bytes of memory of its own that are mapped, where no control group counts those that are used.
    pub(super) data_bytes_max: Option<u64>,
    /// Its control group's list of processes.
    pub(super) cgroup: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Launch {
    /// Starts it as the leader of a process group. It is killed when the calling thread ends.
    pub(super) fn spawn(self) -> io::Result<Child> {
        let (stdout, stderr) = (self.stdout.try_clone()?, self.stderr.try_clone()?);
        // The program's own exec is the last step of `enter`, because LISTEN_PID must be known for it.
        let mut command = Command::new("/");
        command
            .current_dir(&self.folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr));
        let mut entry = Entry::new(self)?;
        #[expect(unsafe_code, reason = "there is no other way to act between fork and exec")]
        // SAFETY: `enter` calls only what is safe after a fork of a process with threads: system calls. All memory that
        // it needs was made before.
        unsafe {
            command.pre_exec(move || Err(entry.enter()));
        }
        command.spawn()
    }
}

/// Everything that a new process needs, made before the fork.
struct Entry {
    launch: Launch,
    parent: u32,
    program: CString,
    pid_variable: Vec<u8>,
    pointers: Pointers,
    /// What the pointers point to.
    _texts: Vec<CString>,
}

/// Lists for exec, each ending in null. They point into their `Entry`'s texts, whose bytes never move.
struct Pointers {
    arguments: Vec<*const c_char>,
    variables: Vec<*const c_char>,
}

#[expect(unsafe_code, reason = "raw pointers are not Send by themselves")]
// SAFETY: they point into heap memory that the same `Entry` owns, and are read by `enter` only.
unsafe impl Send for Pointers {}
#[expect(unsafe_code, reason = "raw pointers are not Sync by themselves")]
// SAFETY: as above.
unsafe impl Sync for Pointers {}

impl Entry {
    fn new(launch: Launch) -> io::Result<Self> {
        let text = |text: String| CString::new(text).map_err(io::Error::from);
        let program = text(format!("./{}", launch.entry))?;
        let mut pid_variable = PID_KEY.to_vec();
        pid_variable.resize(PID_KEY.len() + PID_DIGITS_MAX, 0);
        let arguments = std::iter::once(&launch.entry)
            .chain(&launch.arguments)
            .map(|argument| text(argument.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let socket = [("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", SOCKET_NAME)];
        let variables = launch
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain(socket)
            .map(|(name, value)| text(format!("{name}={value}")))
            .collect::<Result<Vec<_>, _>>()?;
        let listed = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let mut pointers = Pointers {
            arguments: listed(&arguments),
            variables: listed(&variables),
        };
        pointers.arguments.push(std::ptr::null());
        pointers.variables.push(pid_variable.as_ptr().cast());
        pointers.variables.push(std::ptr::null());
        Ok(Self {
            launch,
            parent: std::process::id(),
            program,
            pid_variable,
            pointers,
            _texts: arguments.into_iter().chain(variables).collect(),
        })
    }

    /// Becomes the module's process; returns only if that fails.
    fn enter(&mut self) -> io::Error {
        match self.prepare() {
            Ok(()) => self.exec(),
            Err(error) => error,
        }
    }

    #[expect(unsafe_code, reason = "system calls without a safe form")]
    fn prepare(&mut self) -> io::Result<()> {
        let launch = &self.launch;
        // SAFETY: system calls on numbers and on memory that lives as long as `self`; each result is looked at.
        unsafe {
            if let Some(procs) = &launch.cgroup {
                done(libc::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) as i64)?;
            }
            if launch.own_network {
                done(libc::unshare(libc::CLONE_NEWNET))?;
            }
            limit(libc::RLIMIT_CORE, 0)?;
            limit(libc::RLIMIT_NOFILE, launch.open_files_max)?;
            if let Some(bytes) = launch.data_bytes_max {
                limit(libc::RLIMIT_DATA, bytes)?;
            }
            // What an agent may by itself is not its modules' to have.
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
            if let Some(user) = launch.user {
                done(libc::setgroups(0, std::ptr::null()))?;
                done(libc::setresgid(user.gid, user.gid, user.gid))?;
                done(libc::setresuid(user.uid, user.uid, user.uid))?;
            }
            done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            // After the change of user, which would undo it.
            done(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            if u32::try_from(libc::getppid()).ok() != Some(self.parent) {
                // The parent died before it could be waited for.
                libc::_exit(1);
            }
            // Whatever else this process inherited ends at exec; older systems don't know this and have nothing open.
            libc::syscall(
                libc::SYS_close_range,
                SOCKET_FD,
                u32::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
            let socket = launch.socket.as_raw_fd();
            if socket == SOCKET_FD {
                done(libc::fcntl(SOCKET_FD, libc::F_SETFD, 0))?;
            } else {
                done(libc::dup2(socket, SOCKET_FD))?;
            }
            self.write_pid(libc::getpid());
        }
        Ok(())
    }

    /// The number's digits behind the variable's name, without memory of its own.
    fn write_pid(&mut self, pid: i32) {
        let digits = &mut self.pid_variable[PID_KEY.len()..];
        let mut left = pid.unsigned_abs();
        let count = left.checked_ilog10().map_or(1, |log| log as usize + 1);
        for digit in digits[..count].iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
    }

    #[expect(unsafe_code, reason = "an exec with this environment has no safe form")]
    fn exec(&self) -> io::Error {
        // SAFETY: the lists end in null and point to texts that end in zero, all owned by `self`.
        unsafe {
            libc::execve(
                self.program.as_ptr(),
                self.pointers.arguments.as_ptr(),
                self.pointers.variables.as_ptr(),
            );
        }
        io::Error::last_os_error()
    }
}

/// What a system call returned, as a result.
fn done(result: impl Into<i64>) -> io::Result<()> {
    if result.into() < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lowers a limit for good; one that is lower already stays.
#[expect(
    unsafe_code,
    reason = "system calls without a safe form that is free of memory"
)]
fn limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    // SAFETY: both structures are whole and live through the calls.
    unsafe {
        let mut now: libc::rlimit = std::mem::zeroed();
        done(libc::getrlimit(resource, &raw mut now))?;
        let most = most.min(now.rlim_max);
        let then = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        done(libc::setrlimit(resource, &raw const then))
    }
}

/// How a process ended: its status as `wait` gives it, and the processor time of it and of those it waited for.
#[expect(unsafe_code, reason = "the one call that says what an ended process used")]
pub(super) fn reap(pid: i32) -> io::Result<(std::process::ExitStatus, std::time::Duration)> {
    use std::os::unix::process::ExitStatusExt as _;
    let mut status = 0;
    // SAFETY: both places are whole and live through the call.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        done(libc::wait4(pid, &raw mut status, 0, &raw mut used))?;
        used
    };
    let time = |time: libc::timeval| {
        let seconds = std::time::Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
        seconds + std::time::Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    let status = std::process::ExitStatus::from_raw(status);
    Ok((status, time(used.ru_utime) + time(used.ru_stime)))
}
