//! The host of native processes, with real ones and no ingress around it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hotswap_package::{ByteSize, HumanDuration, Manifest, SocketKind};
use hotswap_runtime::testing::process::release;
use hotswap_runtime::{
    Artifact, Body, Failure, Grants, Instance, Launch, PrepareError, ProcessHost, ProcessHostConfig,
    Readiness, Runtime as _, StartError,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;

/// Far longer than anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn launch() -> Launch {
    Launch {
        node: Some("node-1".to_owned()),
        ..Launch::default()
    }
}

struct Host {
    host: ProcessHost,
    dir: tempfile::TempDir,
}

impl Host {
    fn new(change: impl FnOnce(&mut ProcessHostConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ProcessHostConfig::new(dir.path().join("processes"));
        change(&mut config);
        let host = ProcessHost::new(config).unwrap();
        Self { host, dir }
    }

    async fn try_start(&self, artifact: Artifact) -> Result<Arc<dyn Instance>, StartError> {
        self.host.prepare(artifact).await.unwrap().start(launch()).await
    }

    async fn start(&self, artifact: Artifact) -> Arc<dyn Instance> {
        self.try_start(artifact).await.unwrap()
    }

    async fn started(&self, arguments: &[&str], change: impl FnOnce(&mut Manifest)) -> Arc<dyn Instance> {
        self.start(release("1.0.0", arguments, change)).await
    }
}

fn host() -> Host {
    Host::new(|_| {})
}

async fn ask(instance: &Arc<dyn Instance>, path: &str) -> Result<Response<Body>, Failure> {
    instance
        .handle(Request::get(path).body(Body::empty()).unwrap())
        .await
}

async fn read(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn text(instance: &Arc<dyn Instance>, path: &str) -> String {
    read(ask(instance, path).await.unwrap()).await
}

async fn pid(instance: &Arc<dyn Instance>) -> u32 {
    let answer = text(instance, "/").await;
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn is_there(pid: u32) -> bool {
    // One that has ended and was not waited for is gone, too.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t0"))
}

/// A line of `/proc/PID/status`.
fn line<'a>(status: &'a str, key: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key} in {status}")).trim()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_finds_what_it_is_given_and_nothing_else() {
    let host = Host::new(|config| {
        config
            .grants
            .variables
            .insert("REGION".to_owned(), "eu".to_owned());
        config.grants.variables.insert("OTHER".to_owned(), "x".to_owned());
    });
    let instance = host
        .started(&[], |manifest| {
            manifest.capabilities.environment = vec!["REGION".to_owned()];
        })
        .await;
    assert_eq!(instance.readiness(), Readiness::Ready);
    let variables = text(&instance, "/env").await;
    let mut names: Vec<&str> = variables
        .lines()
        .map(|line| line.split('=').next().unwrap())
        .collect();
    names.sort_unstable();
    let mut expected = [
        "HOME",
        "HOTSWAP_MODULE",
        "HOTSWAP_NODE",
        "HOTSWAP_RUN",
        "HOTSWAP_VERSION",
        "LANG",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "PATH",
        "REGION",
        "TMPDIR",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    for pair in [
        "REGION=eu",
        "HOTSWAP_NODE=node-1",
        "HOTSWAP_MODULE=native",
        "LISTEN_FDNAMES=http",
    ] {
        assert!(
            variables.lines().any(|line| line == pair),
            "{pair} in {variables}"
        );
    }
    // 0 to 2, the socket, this connection twice, and the folder that is being read.
    assert_eq!(text(&instance, "/files").await.split(' ').count(), 7);
    let status = text(&instance, "/status").await;
    assert_eq!(line(&status, "NoNewPrivs:"), "1");
    let limits = text(&instance, "/limits").await;
    let limit = |name: &str| {
        line(&limits, name)
            .split_ascii_whitespace()
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(limit("Max core file size"), "0");
    assert_eq!(limit("Max open files"), "1024");
    if is_root() {
        assert_eq!(line(&status, "Uid:"), "65534\t65534\t65534\t65534");
        assert_eq!(line(&status, "Gid:"), "65534\t65534\t65534\t65534");
        assert_eq!(line(&status, "Groups:"), "");
        assert_eq!(line(&status, "CapEff:"), "0000000000000000");
        let devices = text(&instance, "/net").await;
        assert_eq!(
            devices.lines().skip(2).count(),
            1,
            "nothing but its own loopback: {devices}"
        );
    } else {
        println!("not root: that the user changes and that the network is its own was not looked at");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused_and_the_network_is_there_where_it_is() {
    let asks = |manifest: &mut Manifest| manifest.capabilities.outbound_hosts = vec!["*".to_owned()];
    match host().host.prepare(release("1.0.0", &[], asks)).await {
        Err(PrepareError::NotGranted(missing)) => assert_eq!(missing, ["requests to *"]),
        other => panic!("{:?}", other.map(|_| "prepared")),
    }
    let host = Host::new(|config| {
        config.grants = Grants {
            outbound_hosts: vec!["*".to_owned()],
            ..Grants::default()
        }
    });
    let instance = host.started(&[], asks).await;
    let here = std::fs::read_to_string("/proc/self/net/dev")
        .unwrap()
        .lines()
        .count();
    assert_eq!(text(&instance, "/net").await.lines().count(), here);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_files_and_other_processors_are_refused() {
    let host = host();
    let refusal = async |content: Vec<u8>| {
        let mut artifact = release("1.0.0", &[], |_| {});
        artifact.content = content.into();
        host.host.prepare(artifact).await.err().unwrap().to_string()
    };
    assert!(
        refusal(b"hello".to_vec())
            .await
            .contains("needs an ELF file or a script")
    );
    let mut other = vec![0; 64];
    other[..6].copy_from_slice(b"\x7fELF\x02\x01");
    other[18..20].copy_from_slice(&[22, 0]);
    assert!(
        refusal(other)
            .await
            .contains("it needs arch:elf-22, and this node is arch:")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_answers_go_through_whole_on_connections_that_are_used_again() {
    let host = host();
    for socket in [SocketKind::Unix, SocketKind::Tcp] {
        let arguments: &[&str] = if socket == SocketKind::Tcp { &["tcp"] } else { &[] };
        let change = |manifest: &mut Manifest| manifest.process.as_mut().unwrap().socket = socket;
        let instance = host.started(arguments, change).await;
        for _ in 0..20 {
            assert!(text(&instance, "/").await.starts_with("1.0.0 "));
        }
        assert_eq!(text(&instance, "/connections").await, "1");
        let body = "x".repeat(1 << 20);
        let request = Request::post("/echo").body(Body::from(body.clone())).unwrap();
        assert_eq!(read(instance.handle(request).await.unwrap()).await, body);
        let request = Request::builder()
            .method(Method::HEAD)
            .uri("/")
            .body(Body::empty())
            .unwrap();
        let response = instance.handle(request).await.unwrap();
        assert!(response.headers().contains_key("content-length"));
        assert_eq!(read(response).await, "");
        let response = ask(&instance, "/head").await.unwrap();
        assert!(response.headers().contains_key("x-public"));
        assert!(
            !response.headers().contains_key("x-private"),
            "{:?}",
            response.headers()
        );
        assert!(read(response).await.contains("via: 1.1 hotswap"));
        assert_eq!(
            ask(&instance, "/fail").await.unwrap().status(),
            StatusCode::INTERNAL_SERVER_ERROR
        );
        let mut body = ask(&instance, "/stream?5").await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "piece 0\n", "it comes before the rest is there");
        assert_eq!(
            body.collect().await.unwrap().to_bytes().len(),
            4 * "piece 0\n".len()
        );
        instance.close(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_its_time_and_a_module_its_places() {
    let host = host();
    let instance = host
        .started(&[], |manifest| {
            manifest.limits.time = HumanDuration::millis(100);
            manifest.limits.concurrency = 1;
        })
        .await;
    let late = ask(&instance, "/slow?2000").await;
    assert!(matches!(late, Err(Failure::TimedOut { .. })), "{late:?}");
    let body = ask(&instance, "/stream?1000").await.unwrap().into_body();
    let ended = body.collect().await.unwrap_err().to_string();
    assert!(ended.contains("longer than 100ms"), "{ended}");
    let usage = instance.usage();
    assert_eq!((usage.traps, usage.in_flight), (2, 0));
    assert!(
        text(&instance, "/").await.starts_with("1.0.0 "),
        "the one place is free again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_requests_and_turns_new_ones_away() {
    let host = host();
    let instance = host.started(&[], |_| {}).await;
    let process = pid(&instance).await;
    let slow = tokio::spawn(instance.handle(Request::get("/slow?300").body(Body::empty()).unwrap()));
    until("it is in flight", || instance.usage().in_flight == 1).await;
    let closing = tokio::spawn(instance.close(PATIENCE));
    until("it is closed", || instance.readiness() == Readiness::Closed).await;
    let turned_away = ask(&instance, "/").await;
    assert!(matches!(turned_away, Err(Failure::Closed(_))), "{turned_away:?}");
    assert_eq!(read(slow.await.unwrap().unwrap()).await, "slow");
    assert_eq!(closing.await.unwrap().cut, 0);
    assert!(!is_there(process));

    let instance = host.started(&[], |_| {}).await;
    let slow = tokio::spawn(instance.handle(Request::get("/slow?1900").body(Body::empty()).unwrap()));
    until("it is in flight", || instance.usage().in_flight == 1).await;
    assert_eq!(instance.close(Duration::from_millis(20)).await.cut, 1);
    assert!(matches!(slow.await.unwrap(), Err(Failure::Cut)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_replaced_while_requests_wait() {
    let host = host();
    let instance = host.started(&[], |_| {}).await;
    let before = pid(&instance).await;
    let killed = Instant::now();
    kill(before);
    until("it is gone", || !is_there(before)).await;
    // The socket never closed: this waits for the next process.
    let after = pid(&instance).await;
    println!("SIGKILL to the next answer: {:?}", killed.elapsed());
    assert_ne!(before, after);
    assert_eq!(instance.readiness(), Readiness::Ready, "one end is no trouble");
    assert_eq!(instance.usage().instances_started, 2);
    let lost = ask(&instance, "/crash").await;
    assert!(matches!(lost, Err(Failure::NoAnswer(_))), "{lost:?}");
    assert_ne!(pid(&instance).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_again_and_again_turns_the_releases_health() {
    let host = host();
    let instance = host.started(&[], |_| {}).await;
    let begun = Instant::now();
    until("its health turns", || {
        let request = Request::post("/crash").body(Body::empty()).unwrap();
        tokio::spawn(instance.handle(request));
        matches!(instance.readiness(), Readiness::Failing(_))
    })
    .await;
    println!(
        "a process that crashes at each request is unhealthy after {:?}",
        begun.elapsed()
    );
    let Readiness::Failing(why) = instance.readiness() else {
        panic!("it is failing")
    };
    assert!(
        why.contains("3 times within 60s") && why.contains("ended with status 3"),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_never_gets_ready_or_dies_at_its_start_says_why() {
    let host = host();
    let deadline = Duration::from_millis(400);
    let change = |manifest: &mut Manifest| {
        manifest.process.as_mut().unwrap().ready_deadline = HumanDuration(deadline);
    };
    let begun = Instant::now();
    let never = host.try_start(release("1.0.0", &["never-ready"], change)).await;
    assert!(matches!(never, Err(StartError::TimedOut(given)) if given == deadline));
    println!(
        "never ready: given up after {:?} of {deadline:?}",
        begun.elapsed()
    );
    let died = host.try_start(release("1.0.0", &["die-at-start"], change)).await;
    let died = died.err().unwrap().to_string();
    assert_eq!(
        died,
        "the module failed to start: its process ended with status 7 before it was ready; it said: there is no database"
    );
    let run = std::fs::read_dir(host.dir.path().join("processes"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let run = run.file_name();
    until("nothing is left", || nothing_runs(run.to_str().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_asked_over_http_where_the_manifest_says_so() {
    let host = host();
    let ready = |path: &'static str| {
        move |manifest: &mut Manifest| {
            let process = manifest.process.as_mut().unwrap();
            process.ready = hotswap_package::Ready::Http;
            process.ready_path = Some(path.to_owned());
            process.ready_deadline = HumanDuration::millis(600);
        }
    };
    let instance = host.started(&["slow-start=200"], ready("/")).await;
    assert!(text(&instance, "/").await.starts_with("1.0.0 "));
    let never = host.try_start(release("1.0.0", &[], ready("/fail"))).await;
    assert!(matches!(never, Err(StartError::TimedOut(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ignores_the_end_is_made_to_end_with_all_that_it_started() {
    let host = host();
    let deadline = Duration::from_millis(300);
    let instance = host
        .started(&["ignore-term", "leave-child"], |manifest| {
            manifest.process.as_mut().unwrap().stop_deadline = HumanDuration(deadline);
        })
        .await;
    until("its child is metered", || instance.usage().instances == 2).await;
    let process = pid(&instance).await;
    let begun = Instant::now();
    instance.close(PATIENCE).await;
    println!(
        "ignored SIGTERM: killed after {:?} of {deadline:?}",
        begun.elapsed()
    );
    assert!(begun.elapsed() >= deadline && !is_there(process));
    let run = std::fs::read_dir(host.dir.path().join("processes"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let run = run.file_name();
    until("nothing is left", || nothing_runs(run.to_str().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_leaks_is_ended_at_its_limit_and_metered_on_the_way() {
    let host = host();
    let limit = 24 << 20;
    let instance = host
        .started(&[], |manifest| manifest.limits.memory = ByteSize(limit))
        .await;
    let before = pid(&instance).await;
    let begun = Instant::now();
    let mut asked = 0;
    while instance.usage().instances_started == 1 {
        assert!(begun.elapsed() < PATIENCE, "it was never ended");
        let _ = ask(&instance, "/leak?1000000").await;
        asked += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let usage = instance.usage();
    println!(
        "leaked 1 MB each 20 ms with a limit of 24 MiB: ended after {asked} requests and {:?}, peak {} KiB",
        begun.elapsed(),
        usage.memory_bytes_peak >> 10
    );
    assert!(usage.memory_bytes_peak > limit && usage.memory_bytes_peak < 2 * limit);
    assert_ne!(pid(&instance).await, before);
    until("the new one is metered", || {
        let now = instance.usage().memory_bytes;
        now > 0 && now < limit / 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_is_metered_across_restarts() {
    let host = host();
    let instance = host
        .started(&[], |manifest| manifest.limits.time = HumanDuration::secs(60))
        .await;
    text(&instance, "/work?200000000").await;
    let least = Duration::from_millis(20);
    until("it is metered", || instance.usage().guest_time >= least).await;
    let before = instance.usage().guest_time;
    kill(pid(&instance).await);
    until("another runs", || instance.usage().instances_started == 2).await;
    assert!(instance.usage().guest_time >= before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_host_left_is_ended_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    // A process that has ended and was waited for: no other has its number and its time.
    let mut gone = std::process::Command::new("/bin/true").spawn().unwrap();
    let owner = format!("hotswap-{}-1-0", gone.id());
    gone.wait().unwrap();
    let (left, sockets) = (
        dir.path().join(&owner),
        std::env::temp_dir().join(format!("{owner}-0")),
    );
    std::fs::create_dir_all(&left).unwrap();
    std::fs::create_dir_all(sockets.join("7")).unwrap();
    std::fs::write(left.join("sockets"), sockets.to_str().unwrap()).unwrap();
    let mut orphan = std::process::Command::new("/bin/sleep")
        .arg("600")
        .env("HOTSWAP_RUN", &owner)
        .spawn()
        .unwrap();
    until("it runs", || {
        std::fs::read(format!("/proc/{}/environ", orphan.id()))
            .is_ok_and(|environment| String::from_utf8_lossy(&environment).contains(&owner))
    })
    .await;
    let first = ProcessHost::new(ProcessHostConfig::new(dir.path())).unwrap();
    assert!(!orphan.wait().unwrap().success());
    assert!(!left.exists() && !sockets.exists());
    // A second one beside the first leaves it alone: a successor starts while its predecessor serves.
    let second = ProcessHost::new(ProcessHostConfig::new(dir.path())).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    drop((first, second));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn kill(pid: u32) {
    let killed = std::process::Command::new("/bin/kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
}

/// Whether no process has a host's variable in its environment.
fn nothing_runs(owner: &str) -> bool {
    let variable = format!("HOTSWAP_RUN={owner}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let environments = processes.filter_map(|process| std::fs::read(process.path().join("environ")).ok());
    !environments
        .into_iter()
        .any(|environment| String::from_utf8_lossy(&environment).contains(&variable))
}
