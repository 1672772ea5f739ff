//! A thread for each process: it starts it, and waits for its end.
//!
//! The system kills a process when the *thread* that started it ends, so that thread must live exactly as long; and only
//! whoever waits knows when a process's number may go to another.

use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::{oneshot, watch};

use super::launch::{Launch, reap};

/// How a process ended, and what it used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pub(super) status: ExitStatus,
    pub(super) cpu: Duration,
}

/// A process that runs, or has ended. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    /// Whether the number is still this process's.
    alive: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Child {
    /// Starts a process. `forks` is held meanwhile: a file that is being written can't be executed, and a fork takes
    /// open files along.
    pub(super) async fn start(launch: Launch, forks: Arc<Mutex<()>>) -> io::Result<Self> {
        let (started, has_started) = oneshot::channel();
        let (ended, exit) = watch::channel(None);
        let alive = Arc::new(Mutex::new(true));
        let is_alive = Arc::clone(&alive);
        let keep = move || {
            let forking = forks.lock().unwrap_or_else(PoisonError::into_inner);
            let spawned = launch.spawn();
            drop(forking);
            let pid = spawned.and_then(|child| {
                let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                pid.ok_or_else(|| io::Error::other("the system gave no process number"))
            });
            let pid = match pid {
                Ok(pid) => pid,
                Err(error) => {
                    // Whoever asked may have given up.
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let given_up = started.send(Ok(pid)).is_err();
            if given_up {
                kill(pid, Signal::KILL);
            }
            let exit = wait(pid, &is_alive);
            ended.send_replace(Some(exit));
        };
        std::thread::Builder::new()
            .name("module-process".to_owned())
            .spawn(keep)?;
        let pid = has_started
            .await
            .map_err(|_| io::Error::other("the thread that starts processes ended"))??;
        Ok(Self { pid, alive, exit })
    }

    /// Its number, which is another's once it has ended.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal to it and all of its group, unless it has ended.
    pub(super) fn signal(&self, signal: Signal) {
        let alive = lock(&self.alive);
        if *alive {
            kill(self.pid, signal);
        }
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> Exit {
        let exit = self.exit.wait_for(Option::is_some).await;
        exit.ok().and_then(|exit| *exit).unwrap_or_else(lost)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn lock(alive: &Mutex<bool>) -> MutexGuard<'_, bool> {
    alive.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A group that has ended needs no signal.
fn kill(pid: Pid, signal: Signal) {
    let _ = kill_process_group(pid, signal);
}

/// Waits for a process and takes the rest of its group along, while the group's number can't be anybody else's.
fn wait(pid: Pid, alive: &Mutex<bool>) -> Exit {
    while let Err(error) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
        if error != rustix::io::Errno::INTR {
            break;
        }
    }
    let mut alive = lock(alive);
    kill(pid, Signal::KILL);
    *alive = false;
    reap(pid.as_raw_nonzero().get()).map_or_else(|_| lost(), |(status, cpu)| Exit { status, cpu })
}

/// The end of a process that somebody else waited for.
fn lost() -> Exit {
    Exit {
        status: ExitStatus::default(),
        cpu: Duration::ZERO,
    }
}
