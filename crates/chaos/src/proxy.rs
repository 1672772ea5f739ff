//! The line between an agent and the server: a TCP proxy that spoils it.
//!
//! A proxy sees bytes, not packets. What the network loses, TCP sends again, so loss shows as stalls, and a partition
//! as bytes that come only once it is over; connections that are made meanwhile get no answer. That is how this proxy
//! does it. Nothing is ever changed or left out of a stream that goes on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::rng::Rng;

/// How often a pump looks whether the weather changed.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes that are carried at once.
const CHUNK_BYTES: usize = 16 << 10;
/// The first stall of a lost packet, doubled for each one that is lost again: as TCP's retransmission does.
const RETRANSMIT_FIRST: Duration = Duration::from_millis(200);
/// A half-open connection is ended after so long, whatever the agent thinks of it.
const HALF_OPEN_MAX: Duration = Duration::from_secs(300);
/// Losses in a row of one packet.
const LOST_IN_A_ROW_MAX: u32 = 4;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToAgent,
}

/// What the line does to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Carries them.
    Clear,
    /// Holds all of them, and new connections.
    Cut,
    /// Holds those of one way.
    OneWay(Way),
    /// Carries them late by so many ms, drawn up to twice that.
    Delay(u64),
    /// Loses so many of a hundred.
    Loss(u64),
}

/// One agent's line.
pub(crate) struct Line {
    /// Where the agent connects.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    weather: Mutex<Weather>,
    /// Connections made so far.
    made: AtomicU64,
    /// Connections up to this one are reset.
    reset: AtomicU64,
    /// Connections up to this one have lost their server, and their agent was not told.
    half_open: AtomicU64,
    over: AtomicBool,
    seed: u64,
}

impl Line {
    /// Listens for an agent.
    pub(crate) fn open(address: SocketAddr, upstream: SocketAddr, seed: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            weather: Mutex::new(Weather::Clear),
            made: AtomicU64::new(0),
            reset: AtomicU64::new(0),
            half_open: AtomicU64::new(0),
            over: AtomicBool::new(false),
            seed,
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            while !accepting.over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((agent, _)) => {
                        let number = accepting.made.fetch_add(1, Ordering::Relaxed) + 1;
                        let shared = Arc::clone(&accepting);
                        std::thread::spawn(move || carry(&shared, number, agent));
                    }
                    Err(_) => std::thread::sleep(LOOK_EVERY),
                }
            }
        });
        Ok(Self { address, shared })
    }

    pub(crate) fn set(&self, weather: Weather) {
        *lock(&self.shared.weather) = weather;
    }

    /// Resets every connection there is.
    pub(crate) fn reset(&self) {
        let made = self.shared.made.load(Ordering::Relaxed);
        self.shared.reset.store(made, Ordering::Relaxed);
    }

    /// Ends every connection there is on the server's side, and lets the agent believe that it stands.
    pub(crate) fn half_open(&self) {
        let made = self.shared.made.load(Ordering::Relaxed);
        self.shared.half_open.store(made, Ordering::Relaxed);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn weather(&self) -> Weather {
        *lock(&self.weather)
    }

    fn is_reset(&self, number: u64) -> bool {
        self.over.load(Ordering::Relaxed) || self.reset.load(Ordering::Relaxed) >= number
    }

    fn is_half_open(&self, number: u64) -> bool {
        self.half_open.load(Ordering::Relaxed) >= number
    }

    /// Waits until bytes of this way may pass. `false`: the connection is reset.
    fn wait_to_pass(&self, number: u64, way: Way) -> bool {
        loop {
            if self.is_reset(number) {
                return false;
            }
            match self.weather() {
                Weather::Cut => {}
                Weather::OneWay(held) if held == way => {}
                _ => return true,
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// One connection, from its beginning to its end.
#[expect(clippy::needless_pass_by_value, reason = "the connection ends with this")]
fn carry(shared: &Arc<Shared>, number: u64, agent: TcpStream) {
    // However this ends before both sides stand, the agent sees a reset.
    end_by_reset(&agent);
    // A connection that is made during a partition gets no answer until it is over.
    if !shared.wait_to_pass(number, Way::ToServer) {
        return;
    }
    let Ok(server) = TcpStream::connect_timeout(&shared.upstream, Duration::from_secs(5)) else {
        return;
    };
    for stream in [&agent, &server] {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_read_timeout(Some(LOOK_EVERY));
    }
    let (Ok(agent_too), Ok(server_too)) = (agent.try_clone(), server.try_clone()) else {
        return;
    };
    let broken = Arc::new(AtomicBool::new(false));
    let other = (Arc::clone(shared), Arc::clone(&broken));
    let down = std::thread::spawn(move || {
        pump(
            &other.0,
            number,
            Way::ToAgent,
            (&server_too, &agent_too),
            &other.1,
        );
    });
    pump(shared, number, Way::ToServer, (&agent, &server), &broken);
    let _ = down.join();
    if !broken.load(Ordering::Relaxed) {
        // Both sides had said all they had to say.
        let _ = SockRef::from(&agent).set_linger(None);
    }
}

/// Carries bytes one way until either side ends.
fn pump(shared: &Shared, number: u64, way: Way, (from, to): (&TcpStream, &TcpStream), broken: &AtomicBool) {
    let mut rng = Rng::new(shared.seed ^ number, "loss");
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut reader, mut writer) = (from, to);
    loop {
        if shared.is_half_open(number) {
            match way {
                Way::ToAgent => drop(from.shutdown(Shutdown::Both)),
                Way::ToServer => {
                    swallow(shared, number, from);
                    broken.store(true, Ordering::Relaxed);
                }
            }
            return;
        }
        if shared.is_reset(number) {
            end_by_reset(to);
            broken.store(true, Ordering::Relaxed);
        }
        if broken.load(Ordering::Relaxed) {
            return;
        }
        let read = match reader.read(&mut chunk) {
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => {
                broken.store(true, Ordering::Relaxed);
                return;
            }
        };
        if !shared.wait_to_pass(number, way) {
            continue;
        }
        match shared.weather() {
            Weather::Delay(ms) if read > 0 => std::thread::sleep(rng.ms(ms, ms * 2)),
            Weather::Loss(percent) if read > 0 => {
                let mut stall = RETRANSMIT_FIRST;
                for _ in 0..LOST_IN_A_ROW_MAX {
                    if !rng.percent(percent) {
                        break;
                    }
                    std::thread::sleep(stall);
                    stall *= 2;
                }
            }
            _ => {}
        }
        if read == 0 {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if writer.write_all(&chunk[..read]).is_err() && !shared.is_half_open(number) {
            broken.store(true, Ordering::Relaxed);
            return;
        }
    }
}

/// The server's side is gone; what the agent still sends goes nowhere, until it gives the connection up.
fn swallow(shared: &Shared, number: u64, mut agent: &TcpStream) {
    let mut nowhere = vec![0; CHUNK_BYTES];
    let end = Instant::now() + HALF_OPEN_MAX;
    while Instant::now() < end && !shared.is_reset(number) {
        match agent.read(&mut nowhere) {
            Ok(0) => return,
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return,
            _ => {}
        }
    }
}

/// Once its last handle is dropped, the other side sees a reset.
fn end_by_reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line to a server that sends everything back.
    fn line() -> (Line, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let mut reader = stream.try_clone().unwrap();
                    let _ = std::io::copy(&mut reader, &mut stream);
                });
            }
        });
        let line = Line::open(SocketAddr::from(([127, 0, 0, 1], 0)), upstream, 1).unwrap();
        let agent = TcpStream::connect(line.address).unwrap();
        agent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (line, agent)
    }

    fn echo(mut agent: &TcpStream, said: &[u8]) -> std::io::Result<Vec<u8>> {
        agent.write_all(said)?;
        let mut heard = vec![0; said.len()];
        agent.read_exact(&mut heard)?;
        Ok(heard)
    }

    #[test]
    fn what_a_partition_held_comes_whole_once_it_is_over() {
        let (line, mut agent) = line();
        assert_eq!(echo(&agent, b"one").unwrap(), b"one");
        line.set(Weather::Cut);
        agent.write_all(b"two").unwrap();
        agent.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(agent.read(&mut [0; 3]).is_err(), "nothing passes");
        agent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        line.set(Weather::Clear);
        let mut heard = [0; 3];
        agent.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"two");
    }

    #[test]
    fn delay_and_loss_change_nothing_of_what_is_said() {
        let (line, agent) = line();
        for weather in [Weather::Delay(10), Weather::Loss(50)] {
            line.set(weather);
            assert_eq!(echo(&agent, b"the same").unwrap(), b"the same");
        }
    }

    #[test]
    fn a_reset_is_seen_and_a_new_connection_stands() {
        let (line, agent) = line();
        echo(&agent, b"one").unwrap();
        line.reset();
        let mut end = [0; 1];
        let seen = (&agent).read(&mut end);
        assert_eq!(seen.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let again = TcpStream::connect(line.address).unwrap();
        again.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(echo(&again, b"two").unwrap(), b"two");
    }

    #[test]
    fn a_half_open_line_takes_what_is_said_and_never_answers() {
        let (line, agent) = line();
        echo(&agent, b"one").unwrap();
        line.half_open();
        agent.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        // What was under way may still come.
        let unheard = std::iter::repeat_with(|| echo(&agent, b"two")).find_map(Result::err);
        let unheard = unheard.expect("it ends").kind();
        assert!(
            matches!(unheard, ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "{unheard}"
        );
    }
}
