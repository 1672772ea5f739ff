//! How one agent process succeeds another without a connection being lost.
//!
//! A running agent has a [`Door`]: a socket in its data folder. Its successor knocks there and is given the ingress's
//! listening socket, so that both processes accept from one queue and the kernel loses nobody between them.
//!
//! ```text
//! successor                      predecessor
//! "takeover 1"            ──►
//!                         ◄──    "listener" + the socket
//! (gets ready to start)
//! "prepared"              ──►
//!                                (ends its session and driver; its ingress goes on serving)
//!                         ◄──    "yours": the data folder is free
//! (boots: serves all that was served)
//! "serving"               ──►
//!                                (takes no more connections, lets requests finish, ends)
//! ```
//!
//! Whoever breaks off before "serving" leaves the predecessor with the node: it boots again beside its own ingress,
//! which never stopped.

use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotswap_runtime::Runtimes;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::net::UnixListener;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::agent::{Agent, AgentError, Retired, RunningAgent};
use crate::config::AgentConfig;
use crate::disk::FolderError;
use crate::ingress::Stopped;

/// The socket's name in the data folder.
const DOOR_FILE: &str = "takeover.sock";
/// What a successor of this version says first.
const KNOCK: &str = "takeover 1";
const LISTENER: &str = "listener";
const PREPARED: &str = "prepared";
const YOURS: &str = "yours";
const SERVING: &str = "serving";
/// Longest line, in bytes.
const LINE_BYTES_MAX: u64 = 1_024;
/// How long either side may be silent while it only has to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a successor may take to get ready, or to boot: longer than the agent's own limit, which has the better
/// message.
const WORK_TIME_MAX: Duration = Duration::from_secs(90);
/// How long a successor that failed may hold the data folder, and how often it is tried meanwhile.
const FOLDER_TIME_MAX: Duration = Duration::from_secs(10);
const FOLDER_PAUSE: Duration = Duration::from_millis(50);

/// Why a takeover came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The other side is gone, silent, or says something else.
    #[error("the {side} {problem}")]
    Broken {
        /// Who.
        side: &'static str,
        /// What happened.
        problem: String,
    },
    /// The successor could not start.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Where successors knock. The file stays when it is dropped: it is the successor's by then.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
}

impl Door {
    /// Opens the door of an agent that has the data folder.
    ///
    /// # Errors
    /// What the system says, e.g. that the path is too long for a socket.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let path = door_of(data_dir);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener })
    }

    /// The next successor that knocks.
    pub async fn knock(&self) -> Heir {
        loop {
            match self.listener.accept().await.and_then(|(stream, _)| {
                let process = stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok());
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Ok((Line::new(stream, "successor"), process))
            }) {
                Ok((line, process)) => return Heir { line, process },
                Err(error) => {
                    tracing::warn!(%error, "a successor could not be heard");
                    tokio::time::sleep(ANSWER_TIME_MAX / 10).await;
                }
            }
        }
    }
}

fn door_of(data_dir: &Path) -> PathBuf {
    data_dir.join(DOOR_FILE)
}

/// A successor at the door.
#[derive(Debug)]
pub struct Heir {
    line: Line,
    /// Its process id, where the system says it.
    pub process: Option<u32>,
}

/// What came of a takeover, for the predecessor.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process's life")]
pub enum Outcome {
    /// The successor has the node, and what was under way here has ended.
    Succeeded(Stopped),
    /// It came to nothing: this process has the node as before.
    Stays(RunningAgent, TakeoverError),
}

impl Heir {
    /// Hands the node over. `succeeded` is called as soon as the successor serves, before this process's last requests
    /// have ended.
    ///
    /// # Errors
    /// The agent's driver had failed before, or the successor failed after this agent had retired and this agent could
    /// not boot again either.
    pub async fn hand_over(
        self,
        agent: RunningAgent,
        config: &AgentConfig,
        runtimes: &(impl Into<Runtimes> + Clone),
        succeeded: impl FnOnce(Option<u32>),
    ) -> Result<Outcome, AgentError> {
        let process = self.process;
        let line = match agent.listener() {
            Ok(listener) => blocking(move || self.line.offer(listener)).await,
            Err(error) => Err(broken("successor", format!("can't be given the socket: {error}"))),
        };
        let line = match line {
            Ok(line) => line,
            Err(error) => return Ok(Outcome::Stays(agent, error)),
        };
        let retired = agent.retire().await?;
        let served = blocking(move || {
            let mut line = line;
            line.say(YOURS)?;
            line.expect(SERVING, WORK_TIME_MAX)
        });
        match served.await {
            Ok(()) => {
                succeeded(process);
                Ok(Outcome::Succeeded(retired.finish().await))
            }
            Err(error) => {
                let agent = boot_again(&retired, config, runtimes).await?;
                retired.finish().await;
                Ok(Outcome::Stays(agent, error))
            }
        }
    }
}

/// Boots beside an ingress that never stopped. The data folder may still be the successor's, until its process is gone.
async fn boot_again(
    retired: &Retired,
    config: &AgentConfig,
    runtimes: &(impl Into<Runtimes> + Clone),
) -> Result<RunningAgent, AgentError> {
    let end = Instant::now() + FOLDER_TIME_MAX;
    loop {
        let listener = retired.listener().map_err(|source| AgentError::Listen {
            what: "the ingress",
            address: config.listen,
            source,
        })?;
        match Agent::start_on(config.clone(), runtimes.clone(), listener).await {
            Err(AgentError::Folder(FolderError::InUse { .. })) if Instant::now() < end => {
                tokio::time::sleep(FOLDER_PAUSE).await;
            }
            started => return started,
        }
    }
}

/// A predecessor that offers its node.
#[derive(Debug)]
pub struct Offer {
    line: Line,
    listener: TcpListener,
}

impl Offer {
    /// Asks the agent that has the data folder. `None`: there is none, and the folder is free.
    ///
    /// # Errors
    /// It doesn't answer as an agent of this version does.
    pub async fn ask(data_dir: &Path) -> Result<Option<Self>, TakeoverError> {
        let path = door_of(data_dir);
        blocking(move || {
            let stream = match UnixStream::connect(&path) {
                Ok(stream) => stream,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(broken("running agent", format!("can't be reached: {error}"))),
            };
            let mut line = Line::new(stream, "running agent");
            line.say(KNOCK)?;
            let listener = line.receive_listener()?;
            Ok(Some(Self { line, listener }))
        })
        .await
    }

    /// Takes the node: the predecessor lets go of the data folder, and this process serves everything that it served
    /// before it says so.
    ///
    /// # Errors
    /// This process could not boot, or the predecessor broke off. It goes on with the node.
    pub async fn accept(
        self,
        config: AgentConfig,
        runtimes: impl Into<Runtimes>,
    ) -> Result<RunningAgent, TakeoverError> {
        let Self { mut line, listener } = self;
        let mut line = blocking(move || {
            line.say(PREPARED)?;
            line.expect(YOURS, WORK_TIME_MAX)?;
            Ok::<_, TakeoverError>(line)
        })
        .await?;
        let agent = Agent::succeed(config, runtimes, listener).await?;
        match blocking(move || line.say(SERVING)).await {
            Ok(()) => Ok(agent),
            Err(error) => {
                agent.shutdown().await;
                Err(error)
            }
        }
    }
}

/// One side's end of the conversation.
#[derive(Debug)]
struct Line {
    stream: UnixStream,
    /// Who is at the other end.
    other: &'static str,
}

impl Line {
    fn new(stream: UnixStream, other: &'static str) -> Self {
        Self { stream, other }
    }

    fn broken(&self, problem: impl Into<String>) -> TakeoverError {
        broken(self.other, problem)
    }

    fn say(&mut self, words: &str) -> Result<(), TakeoverError> {
        let said = self
            .stream
            .set_write_timeout(Some(ANSWER_TIME_MAX))
            .and_then(|()| self.stream.write_all(format!("{words}\n").as_bytes()));
        said.map_err(|error| self.broken(format!("is gone: {error}")))
    }

    fn expect(&mut self, words: &str, within: Duration) -> Result<(), TakeoverError> {
        let heard = self.stream.set_read_timeout(Some(within)).and_then(|()| {
            // Each side waits for an answer before it goes on, so nothing of a next line is ever taken along.
            let mut heard = String::new();
            let limited = io::Read::take(&self.stream, LINE_BYTES_MAX);
            BufReader::new(limited).read_line(&mut heard)?;
            Ok(heard)
        });
        match heard {
            Ok(heard) if heard.trim_end() == words => Ok(()),
            Ok(heard) if heard.is_empty() => Err(self.broken(format!("ended before it said {words:?}"))),
            Ok(heard) => Err(self.broken(format!("said {:?} instead of {words:?}", heard.trim_end()))),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(self.broken(format!("did not say {words:?} within {within:?}")))
            }
            Err(error) => Err(self.broken(format!("is gone: {error}"))),
        }
    }

    /// The predecessor's first part, up to a successor that is ready.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the socket's copy is closed when it was given away"
    )]
    fn offer(mut self, listener: TcpListener) -> Result<Self, TakeoverError> {
        self.expect(KNOCK, ANSWER_TIME_MAX)?;
        let words = format!("{LISTENER}\n");
        let descriptors = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        with.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(
            &self.stream,
            &[IoSlice::new(words.as_bytes())],
            &mut with,
            SendFlags::NOSIGNAL,
        )
        .map_err(|error| self.broken(format!("can't be given the socket: {error}")))?;
        self.expect(PREPARED, WORK_TIME_MAX)?;
        Ok(self)
    }

    fn receive_listener(&mut self) -> Result<TcpListener, TakeoverError> {
        self.stream
            .set_read_timeout(Some(ANSWER_TIME_MAX))
            .map_err(|error| self.broken(format!("is gone: {error}")))?;
        let mut words = [0; LISTENER.len() + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let read = recvmsg(
            &self.stream,
            &mut [IoSliceMut::new(&mut words)],
            &mut with,
            RecvFlags::CMSG_CLOEXEC,
        )
        .map_err(|error| self.broken(format!("gave no socket: {error}")))?;
        let given: Option<OwnedFd> = with.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        if read.bytes != words.len() || &words[..LISTENER.len()] != LISTENER.as_bytes() {
            return Err(self.broken("said something else than an agent of this version does"));
        }
        given
            .map(TcpListener::from)
            .ok_or_else(|| self.broken("gave no socket"))
    }
}

fn broken(side: &'static str, problem: impl Into<String>) -> TakeoverError {
    TakeoverError::Broken {
        side,
        problem: problem.into(),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_goes_from_one_side_to_the_other() {
        let (here, there) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let offering = std::thread::spawn(move || Line::new(here, "successor").offer(listener));
        let mut line = Line::new(there, "running agent");
        line.say(KNOCK).unwrap();
        let given = line.receive_listener().unwrap();
        line.say(PREPARED).unwrap();
        offering.join().unwrap().unwrap();
        assert_eq!(given.local_addr().unwrap(), address);
        std::net::TcpStream::connect(address).unwrap();
        given.accept().unwrap();
    }

    #[test]
    fn what_breaks_off_or_says_something_else_is_told() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut line = Line::new(there, "running agent");
        line.say("something").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = Line::new(here, "successor")
            .offer(listener)
            .unwrap_err()
            .to_string();
        assert_eq!(
            refused,
            "the successor said \"something\" instead of \"takeover 1\""
        );
        let refused = line.receive_listener().unwrap_err().to_string();
        assert!(refused.starts_with("the running agent "), "{refused}");
    }

    #[tokio::test]
    async fn without_an_agent_there_is_nothing_to_take() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Offer::ask(dir.path()).await.unwrap().is_none());
        drop(Door::open(dir.path()).unwrap());
        assert!(Offer::ask(dir.path()).await.unwrap().is_none());
    }
}
