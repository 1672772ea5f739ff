//! One process: started, asked what it costs, ended with its owner.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpStream;

/// How long a process may take to listen.
const READY_MAX: Duration = Duration::from_secs(60);
/// How often it is tried.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long it may take to end in order.
const END_MAX: Duration = Duration::from_secs(20);
/// A process rests that used less than this share of a core for so long; one that never does is waited for so long.
const REST_SHARE: f64 = 0.1;
const REST_LOOK: Duration = Duration::from_millis(200);
const REST_MAX: Duration = Duration::from_secs(5);
/// Ticks of a second in which the kernel counts processors' time (`USER_HZ`, fixed on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// A running process; killed when it is dropped.
pub(crate) struct Child(std::process::Child);

impl Child {
    /// Starts a command whose errors go to a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stderr(File::create(log)?)
            .spawn()
            .with_context(|| format!("failed to start {program}"))?;
        Ok(Self(child))
    }

    /// Waits until something listens there; says how long that took.
    pub(crate) async fn listens(&mut self, at: SocketAddr, log: &Path) -> Result<Duration> {
        let began = Instant::now();
        while TcpStream::connect(at).await.is_err() {
            self.wait_more(began, log, &format!("nothing listens on {at}"))
                .await?;
        }
        Ok(began.elapsed())
    }

    /// Waits until it has written a file.
    pub(crate) async fn writes(&mut self, file: &Path, log: &Path) -> Result<()> {
        let began = Instant::now();
        while !file.exists() {
            self.wait_more(began, log, &format!("{} is not there", file.display()))
                .await?;
        }
        Ok(())
    }

    async fn wait_more(&mut self, began: Instant, log: &Path, what: &str) -> Result<()> {
        if let Some(status) = self.0.try_wait()? {
            bail!("it ended with {status}: {}", tail(log));
        }
        if began.elapsed() > READY_MAX {
            bail!("{what} after {READY_MAX:?}: {}", tail(log));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }

    pub(crate) fn inner(&mut self) -> &mut std::process::Child {
        &mut self.0
    }

    /// Resident memory, in MiB.
    pub(crate) fn memory_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        Ok(kib.context("the process has no memory any more")? / 1024.0)
    }

    /// Processors' time so far, in s; counted in hundredths.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name, in brackets, may hold blanks.
        let after = stat.rsplit_once(')').context("a strange /proc/PID/stat")?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let (user, system) = (ticks(11), ticks(12));
        user.zip(system)
            .map(|(user, system)| (user + system) / TICKS_PER_SECOND)
            .context("a strange /proc/PID/stat")
    }

    /// Waits until it has next to nothing to do, or for as long as that may take.
    pub(crate) async fn at_rest(&self) -> Result<()> {
        let end = Instant::now() + REST_MAX;
        let mut cpu = self.cpu_seconds()?;
        while Instant::now() < end {
            tokio::time::sleep(REST_LOOK).await;
            let now = self.cpu_seconds()?;
            if now - cpu < REST_LOOK.as_secs_f64() * REST_SHARE {
                break;
            }
            cpu = now;
        }
        Ok(())
    }

    /// Asks it to end, and waits for it.
    pub(crate) fn stop(mut self) -> Result<()> {
        let id = self.0.id().to_string();
        let _ = Command::new("kill")
            .args(["-TERM", &id])
            .stderr(Stdio::null())
            .status();
        let began = Instant::now();
        while self.0.try_wait()?.is_none() {
            if began.elapsed() > END_MAX {
                bail!("a process did not end within {END_MAX:?} of being asked to");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address of this machine that nobody listens on.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(8).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
