//! A native server for tests: std only, so that `rustc` alone builds it. It behaves as asked, well or badly.
//!
//! Arguments: `never-ready`, `ignore-term`, `die-at-start`, `leave-child`, `slow-start=MS`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::FromRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
static LEAKED: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    fn signal(number: i32, action: usize) -> usize;
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |what: &str| arguments.iter().any(|argument| argument == what);
    if asked("die-at-start") {
        eprintln!("there is no database");
        std::process::exit(7);
    }
    if asked("ignore-term") {
        unsafe { signal(15, 1) };
    }
    if asked("leave-child") {
        std::process::Command::new("/bin/sleep").arg("600").spawn().expect("a child starts");
    }
    let late = arguments.iter().find_map(|argument| argument.strip_prefix("slow-start="));
    if let Some(ms) = late {
        std::thread::sleep(Duration::from_millis(ms.parse().expect("milliseconds")));
    }
    assert_eq!(std::env::var("LISTEN_PID").ok(), Some(std::process::id().to_string()));
    assert_eq!(std::env::var("LISTEN_FDS").ok().as_deref(), Some("1"));
    println!("started version {}", variable("HOTSWAP_VERSION"));
    if !asked("never-ready") {
        let socket = UnixDatagram::unbound().expect("a socket");
        socket
            .send_to(b"STATUS=all is well\nREADY=1", variable("NOTIFY_SOCKET"))
            .expect("it is told that this is ready");
    }
    if asked("tcp") {
        let listener = unsafe { TcpListener::from_raw_fd(3) };
        for stream in listener.incoming().flatten() {
            let reader = stream.try_clone().expect("a second handle");
            serve(reader, stream);
        }
    } else {
        let listener = unsafe { UnixListener::from_raw_fd(3) };
        for stream in listener.incoming().flatten() {
            let reader = stream.try_clone().expect("a second handle");
            serve(reader, stream);
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn serve(reader: impl Read + Send + 'static, mut writer: impl Write + Send + 'static) {
    CONNECTIONS.fetch_add(1, Relaxed);
    std::thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(move || {
            let mut reader = BufReader::new(reader);
            while let Some(request) = read(&mut reader) {
                if answer(&request, &mut writer).is_err() {
                    return;
                }
            }
        })
        .expect("a thread");
}

struct Request {
    method: String,
    path: String,
    head: String,
    body: Vec<u8>,
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut head = String::new();
    let mut headers = HashMap::new();
    loop {
        let begun = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        let line = head[begun..].trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let mut words = head.split_ascii_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|value| value == "chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let begun = body.len();
            body.resize(begun + size + 2, 0);
            reader.read_exact(&mut body[begun..]).ok()?;
            body.truncate(begun + size);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = headers.get("content-length") {
        body.resize(length.parse().ok()?, 0);
        reader.read_exact(&mut body).ok()?;
    }
    Some(Request { method, path, head, body })
}

fn answer(request: &Request, writer: &mut impl Write) -> std::io::Result<()> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let number = || query.parse::<u64>().unwrap_or(0);
    let (mut status, mut extra) = ("200 OK", "");
    let body = match path {
        "/env" => {
            let mut all: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            all.sort();
            all.join("\n")
        }
        "/status" => std::fs::read_to_string("/proc/self/status").unwrap_or_default(),
        "/net" => std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default(),
        "/files" => {
            let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
            open.map(|file| file.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        }
        "/limits" => std::fs::read_to_string("/proc/self/limits").unwrap_or_default(),
        "/head" => {
            extra = "connection: x-private\r\nx-private: 1\r\nx-public: 1\r\n";
            request.head.clone()
        }
        "/echo" => String::from_utf8_lossy(&request.body).into_owned(),
        "/connections" => CONNECTIONS.load(Relaxed).to_string(),
        "/slow" => {
            std::thread::sleep(Duration::from_millis(number()));
            "slow".to_owned()
        }
        "/work" => {
            let mut sum = 1u64;
            for round in 0..number() {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(round));
            }
            sum.to_string()
        }
        "/fail" => {
            status = "500 Internal Server Error";
            "no".to_owned()
        }
        "/crash" => std::process::exit(3),
        "/leak" => {
            let leaked = vec![1u8; usize::try_from(number()).unwrap_or(0)];
            std::mem::forget(leaked);
            LEAKED.fetch_add(number(), Relaxed);
            LEAKED.load(Relaxed).to_string()
        }
        "/say" => {
            eprintln!("said {query}");
            String::new()
        }
        "/stream" => {
            writer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            for number in 0..number() {
                let piece = format!("piece {number}\n");
                write!(writer, "{:x}\r\n{piece}\r\n", piece.len())?;
                writer.flush()?;
                std::thread::sleep(Duration::from_millis(20));
            }
            return writer.write_all(b"0\r\n\r\n");
        }
        _ => format!("{} {}", variable("HOTSWAP_VERSION"), std::process::id()),
    };
    let length = body.len();
    let shown = if request.method == "HEAD" { "" } else { &body };
    let whole = format!("HTTP/1.1 {status}\r\n{extra}content-length: {length}\r\n\r\n{shown}");
    writer.write_all(whole.as_bytes())
}
