//! Customers who count every answer that they don't get.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::fleet::DEADLINE;

/// What customers ask for.
const PATH: &str = "/payments/health";

/// How a customer connects.
#[derive(Clone, Copy)]
pub(crate) enum Habit {
    /// Keeps its connection until it is told that it ends.
    Keeps,
    /// A connection for every request.
    Anew,
}

/// Customers of one address, each with a thread of its own. A failed connection, a broken answer and any status but 200
/// are failures; nothing is sent twice.
pub(crate) struct Customers {
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Customers {
    pub(crate) fn start(url: &str, habits: &[Habit]) -> Self {
        Self::start_at(url, PATH, habits)
    }

    pub(crate) fn start_at(url: &str, path: &str, habits: &[Habit]) -> Self {
        let address = url
            .strip_prefix("http://")
            .expect("an ingress is reached by HTTP")
            .to_owned();
        let (answered, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let threads = habits.iter().map(|&habit| {
            let (address, path) = (address.clone(), path.to_owned());
            let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
            std::thread::spawn(move || {
                let (mut failures, mut connection) = (Vec::new(), None);
                while !stop.load(Ordering::Relaxed) {
                    match ask(&address, &path, habit, &mut connection) {
                        Ok(_) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(failure) => failures.push(failure),
                    }
                    // A customer thinks between two requests; with this a test leaves the machine to others.
                    std::thread::sleep(Duration::from_micros(500));
                }
                failures
            })
        });
        Self {
            threads: threads.collect(),
            answered,
            stop,
        }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered.
    #[track_caller]
    pub(crate) fn go_on(&self, more: u64) {
        let (from, end) = (self.answered(), Instant::now() + DEADLINE);
        while self.answered() < from + more {
            assert!(
                Instant::now() < end,
                "only {} were answered",
                self.answered() - from
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many were answered, and every failure.
    pub(crate) fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self
            .threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a customer ends in order"));
        let failures = failures.collect();
        (self.answered.load(Ordering::Relaxed), failures)
    }
}

/// Which version answers at an address.
pub(crate) fn version(url: &str) -> String {
    let address = url
        .strip_prefix("http://")
        .expect("an ingress is reached by HTTP");
    ask(address, PATH, Habit::Anew, &mut None).expect("it answers")
}

fn ask(
    address: &str,
    path: &str,
    habit: Habit,
    kept: &mut Option<BufReader<TcpStream>>,
) -> Result<String, String> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => {
            let stream = TcpStream::connect(address).map_err(|error| format!("connecting: {error}"))?;
            stream
                .set_read_timeout(Some(Duration::from_secs(30)))
                .expect("a timeout can be set");
            stream.set_nodelay(true).expect("a stream can be tuned");
            BufReader::new(stream)
        }
    };
    let close = match habit {
        Habit::Keeps => "",
        Habit::Anew => "connection: close\r\n",
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: fleet\r\n{close}\r\n");
    let (version, ends) = exchange(&mut connection, &request).map_err(|error| format!("asking: {error}"))?;
    if !ends {
        *kept = Some(connection);
    }
    Ok(version)
}

/// The version that answered, and whether the connection ends with it.
fn exchange(connection: &mut BufReader<TcpStream>, request: &str) -> std::io::Result<(String, bool)> {
    connection.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    connection.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(format!("answered {line:?}")));
    }
    let (mut length, mut version, mut ends) = (0, String::new(), false);
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(std::io::Error::other)?,
            "connection" => ends = value.eq_ignore_ascii_case("close"),
            "x-module-version" => value.clone_into(&mut version),
            _ => {}
        }
    }
    connection.read_exact(&mut vec![0; length])?;
    Ok((version, ends))
}
