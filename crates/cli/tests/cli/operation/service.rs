//! Under a service manager: what it gives, and what it is told.

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};

use crate::fleet::{DEADLINE, Process, Server};
use crate::support::hotswap;

/// A manager that hears.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
}

impl Manager {
    fn new(dir: &std::path::Path) -> Self {
        let path = dir.join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, path }
    }

    /// Waits for a message with a text; others go before it.
    #[track_caller]
    fn hears(&self, text: &str) -> String {
        let mut heard = Vec::new();
        loop {
            let mut message = [0; 4096];
            let length = match self.socket.recv(&mut message) {
                Ok(length) => length,
                Err(error) => panic!("{text:?} was never told ({error}), but {heard:?}"),
            };
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            if message.contains(text) {
                return message;
            }
            heard.push(message);
        }
    }
}

#[test]
fn a_server_tells_its_manager_that_it_is_ready_alive_reloading_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::new(dir.path());
    let data = dir.path().join("server");
    let mut command = hotswap();
    command.args([
        "server",
        "--data",
        data.to_str().unwrap(),
        "--http",
        "127.0.0.1:0",
        "--agents",
        "127.0.0.1:0",
    ]);
    command
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "300000");
    let server = Process::start_command(&mut command);
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");
    server.signal("-HUP");
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    server.signal("-TERM");
    manager.hears("STOPPING=1");
    assert_eq!(server.ended(), 0);
}

#[test]
fn sockets_of_the_manager_are_served_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("server");
    let sockets = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [agents, http] = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
    for socket in &sockets {
        fcntl_setfd(socket, FdFlags::empty()).unwrap();
    }
    let [third, fourth] = sockets.each_ref().map(|socket| socket.as_raw_fd());
    let hotswap = hotswap();
    let mut command = Command::new("sh");
    for (name, value) in hotswap.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // By way of two that are free: either of theirs may be 3 or 4 already.
    let moves = format!("exec \"$0\" server --data \"$1\" 8<&{third} 9<&{fourth} 3<&8 4<&9 8<&- 9<&-");
    command
        .args(["-c", &moves])
        .arg(hotswap.get_program())
        .arg(&data)
        .stdin(std::process::Stdio::null())
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", "agents:http");
    let server = Process::start_command(&mut command);
    assert_eq!(server.url, format!("http://{http}"));
    drop(sockets);
    std::net::TcpStream::connect(agents).unwrap();
    assert_eq!(server.stop(), 0);
}

#[test]
fn an_agent_tells_its_manager_which_process_succeeds_it() {
    let server = Server::start(&[]);
    let manager = Manager::new(server.dir.path());
    let data = server.dir.path().join("node-1");
    let mut command = hotswap();
    command.args([
        "agent",
        "--node",
        "node-1",
        "--environment",
        "QA",
        "--server",
        &server.agents,
        "--join-token-file",
        &server.join_token("QA"),
    ]);
    command.args(["--data", data.to_str().unwrap(), "--ingress", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &manager.path);
    let agent = Process::start_command(&mut command);
    manager.hears("READY=1");
    agent.signal("-USR2");
    let told = manager.hears("MAINPID=");
    let successor: u32 = told.trim().trim_start_matches("MAINPID=").parse().unwrap();
    assert_ne!(successor, agent.id());
    assert_eq!(agent.ended(), 0);
    crate::fleet::signal_process(successor, "-TERM");
    manager.hears("STOPPING=1");
    let end = std::time::Instant::now() + DEADLINE;
    while crate::fleet::is_running(successor) {
        assert!(std::time::Instant::now() < end, "the successor does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}
