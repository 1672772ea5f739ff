//! The WebAssembly host, with real components and no ingress around it.

use std::sync::Arc;
use std::time::Duration;

use hotswap_package::{ByteSize, HumanDuration, Isolation, Manifest};
use hotswap_runtime::testing::{artifact, component, encode, hostile};
use hotswap_runtime::{
    Artifact, Body, Failure, Instance, Launch, PrepareError, Prepared, Readiness, Runtime, StartError,
    WasmHost, WasmHostConfig,
};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;

fn host() -> WasmHost {
    host_with(|_| {})
}

fn host_with(change: impl FnOnce(&mut WasmHostConfig)) -> WasmHost {
    let mut config = WasmHostConfig {
        instances_max: 64,
        ..WasmHostConfig::default()
    };
    change(&mut config);
    WasmHost::new(config).unwrap()
}

fn release(change: impl FnOnce(&mut Manifest)) -> Artifact {
    artifact("test-module", "1.0.0", component("fine"), change)
}

async fn start(host: &WasmHost, artifact: Artifact) -> Arc<dyn Instance> {
    host.prepare(artifact)
        .await
        .unwrap()
        .start(Launch::default())
        .await
        .unwrap()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

async fn ask(instance: &Arc<dyn Instance>, path: &str) -> Result<Response<Body>, Failure> {
    instance.handle(get(path)).await
}

async fn text(instance: &Arc<dyn Instance>, path: &str) -> String {
    let response = ask(instance, path).await.unwrap();
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn refused(host: &WasmHost, artifact: Artifact) -> PrepareError {
    match host.prepare(artifact).await {
        Ok(_) => panic!("it was prepared"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_serves_many_requests_and_keeps_its_state() {
    let instance = start(&host(), release(|_| {})).await;
    assert_eq!(instance.readiness(), Readiness::Ready);
    assert_eq!(text(&instance, "/ok").await, "fine");
    assert_eq!(text(&instance, "/count").await, "b");
    assert_eq!(
        ask(&instance, "/error").await.unwrap().status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
    let usage = instance.usage();
    assert_eq!((usage.instances, usage.instances_started), (1, 1));
    assert!(usage.guest_time > Duration::ZERO);
    assert_eq!(
        (usage.memory_bytes, usage.memory_bytes_peak),
        (128 << 10, 128 << 10)
    );
    assert_eq!(usage.in_flight, 0);
}

/// A busy connection's task serves many requests in one turn: tokio's budget for it runs out in between. A guest whose
/// thread was taken away in its midst yields, and its answer streams then; so that one turn in many without that is
/// enough to show that the budget tears nothing.
#[tokio::test]
async fn answers_are_whole_however_long_a_task_goes_on() {
    /// More requests than tokio's budget for one turn has steps.
    const REQUESTS: usize = 300;
    /// Turns until none of them was disturbed.
    const TURNS_MAX: usize = 1_000;
    let instance = start(&host(), release(|_| {})).await;
    for _ in 0..TURNS_MAX {
        let mut whole = 0;
        for _ in 0..REQUESTS {
            let response = ask(&instance, "/ok").await.unwrap();
            whole += usize::from(http_body::Body::size_hint(response.body()).exact() == Some(4));
        }
        if whole == REQUESTS {
            return;
        }
    }
    panic!("each of {TURNS_MAX} turns had an answer that streamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn isolation_by_request_and_bounded_reuse_give_fresh_instances() {
    let isolated = start(
        &host(),
        release(|manifest| manifest.isolation = Isolation::Request),
    )
    .await;
    for _ in 0..3 {
        assert_eq!(text(&isolated, "/count").await, "a");
    }
    assert_eq!(isolated.usage().instances, 0);
    let bounded = start(&host(), release(|manifest| manifest.limits.instance_reuse = 2)).await;
    let mut counts = String::new();
    for _ in 0..5 {
        counts += &text(&bounded, "/count").await;
    }
    assert_eq!(counts, "ababa");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_an_endless_loop_and_too_much_memory_each_cost_one_request() {
    let instance = start(
        &host(),
        release(|manifest| {
            manifest.limits.time = HumanDuration::millis(100);
            manifest.limits.memory = ByteSize::mib(4);
        }),
    )
    .await;
    assert!(
        matches!(ask(&instance, "/trap").await, Err(Failure::Trapped(cause)) if cause.contains("unreachable"))
    );
    assert_eq!(text(&instance, "/ok").await, "fine");
    assert!(matches!(
        ask(&instance, "/loop").await,
        Err(Failure::TimedOut { .. })
    ));
    assert_eq!(text(&instance, "/ok").await, "fine");
    assert!(
        matches!(ask(&instance, "/memory").await, Err(Failure::OutOfMemory { limit_bytes }) if limit_bytes == 4 << 20)
    );
    assert_eq!(text(&instance, "/ok").await, "fine");
    let usage = instance.usage();
    assert_eq!(usage.traps, 3);
    assert!(
        usage.memory_bytes_peak > 3 << 20 && usage.memory_bytes == 128 << 10,
        "{usage:?}"
    );
    assert!(usage.guest_time >= Duration::from_millis(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_waits_too_long_is_ended_too() {
    let instance = start(
        &host(),
        release(|manifest| manifest.limits.time = HumanDuration::millis(50)),
    )
    .await;
    assert!(matches!(
        ask(&instance, "/wait").await,
        Err(Failure::TimedOut { .. })
    ));
    assert_eq!(text(&instance, "/ok").await, "fine");
    assert_eq!(instance.usage().traps, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_and_half_an_answer_are_told() {
    let instance = start(&host(), release(|_| {})).await;
    for path in ["/none", "/unfinished"] {
        let failure = ask(&instance, path).await.unwrap_err();
        assert!(matches!(failure, Failure::NoAnswer(_)), "{failure:?}");
        assert_eq!(failure.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(text(&instance, "/ok").await, "fine");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_streams_and_a_trap_in_it_breaks_it_off() {
    let instance = start(&host(), release(|_| {})).await;
    assert_eq!(text(&instance, "/stream").await.len(), 64 * 4096);
    let response = ask(&instance, "/break").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(
        response.into_body().collect().await.is_err(),
        "a broken body must not look whole"
    );
    assert_eq!(instance.usage().traps, 1);
    assert_eq!(text(&instance, "/ok").await, "fine");
}

/// Spinning guests on every thread of the runtime: others are served all the same, before the spinners' time is up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spinning_guests_starve_nobody() {
    let instance = start(
        &host(),
        release(|manifest| manifest.limits.time = HumanDuration::secs(60)),
    )
    .await;
    let spinners: Vec<_> = (0..4)
        .map(|_| tokio::spawn(instance.handle(get("/loop"))))
        .collect();
    while instance.usage().in_flight < 4 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        assert_eq!(text(&instance, "/ok").await, "fine");
    }
    assert!(spinners.iter().all(|spinner| !spinner.is_finished()));
    spinners.iter().for_each(tokio::task::JoinHandle::abort);
    for spinner in spinners {
        assert!(spinner.await.unwrap_err().is_cancelled());
    }
    assert_eq!(
        instance.usage().in_flight,
        0,
        "a request that was given up frees its place"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_places_and_queue_requests_are_refused() {
    let instance = start(&host(), release(|manifest| manifest.limits.concurrency = 1)).await;
    // 1 is served, 4 wait for longer than a wait may last, and the 6th is refused at once.
    let requests: Vec<_> = (0..10)
        .map(|_| tokio::spawn(instance.handle(get("/wait"))))
        .collect();
    let (mut served, mut overloaded) = (0, 0);
    for request in requests {
        match request.await.unwrap() {
            Ok(_) => served += 1,
            Err(Failure::Overloaded { .. }) => overloaded += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((served, overloaded), (5, 5));
    assert_eq!(instance.usage().overloads, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_requests_in_flight_and_refuses_new_ones_whole() {
    let instance = start(&host(), release(|_| {})).await;
    let in_flight = tokio::spawn(instance.handle(get("/wait")));
    while instance.usage().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    let closing = instance.close(Duration::from_secs(10));
    assert_eq!(instance.readiness(), Readiness::Closed);
    let request = Request::post("/ok")
        .header("x-mark", "1")
        .body(Body::full("body"))
        .unwrap();
    let Err(Failure::Closed(request)) = instance.handle(request).await else {
        panic!("it took a request");
    };
    assert_eq!(request.headers()["x-mark"], "1");
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "body");
    assert_eq!(closing.await.cut, 0);
    assert!(in_flight.await.unwrap().is_ok());
    assert_eq!(
        (instance.usage().instances, instance.usage().memory_bytes),
        (0, 0)
    );
    assert_eq!(instance.close(Duration::ZERO).await.cut, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drains_deadline_cuts_and_counts() {
    let instance = start(
        &host(),
        release(|manifest| manifest.limits.time = HumanDuration::secs(60)),
    )
    .await;
    let cut: Vec<_> = ["/loop", "/wait"]
        .map(|path| tokio::spawn(instance.handle(get(path))))
        .into();
    while instance.usage().in_flight < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(instance.close(Duration::from_millis(10)).await.cut, 2);
    for request in cut {
        assert!(matches!(request.await.unwrap(), Err(Failure::Cut)));
    }
    assert_eq!(instance.usage().instances, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_component_of_ours_is_refused_by_name() {
    let host = host_with(|config| config.component_bytes_max = 20_000);
    let bad = |content: Vec<u8>| artifact("test-module", "1.0.0", content, |_| {});
    let core = wat_core("(module)");
    let told = |error: PrepareError| error.to_string();
    assert!(told(refused(&host, bad(b"#!/bin/sh".to_vec())).await).contains("component"));
    assert!(told(refused(&host, bad(Vec::new())).await).contains("empty"));
    assert!(told(refused(&host, bad(core)).await).contains("core WebAssembly module"));
    let mut torn = component("x");
    torn.truncate(torn.len() / 2);
    assert!(matches!(
        refused(&host, bad(torn)).await,
        PrepareError::Invalid(_)
    ));
    assert!(matches!(
        refused(&host, bad(vec![0; 20_001])).await,
        PrepareError::TooLarge { bytes: 20_001, .. }
    ));

    let empty_world = encode("(module)", "package a:b; world w {}");
    assert!(
        matches!(refused(&host, bad(empty_world)).await, PrepareError::MissingExport { exports, .. } if exports.is_empty())
    );

    let wit = include_str!("../src/testing/module.wit").replace(
        "world module {",
        "interface secrets { steal: func(); } world module { import secrets;",
    );
    let wat = include_str!("../src/testing/module.wat")
        .replace("@TEXT@", "")
        .replace("@LENGTH@", "0")
        .replacen(
            "(module",
            "(module (import \"hotswap:testing/secrets\" \"steal\" (func $steal))",
            1,
        );
    let thief = refused(&host, bad(encode(&wat, &wit))).await;
    assert!(
        matches!(&thief, PrepareError::UnknownImport { import, .. } if import == "hotswap:testing/secrets"),
        "{thief}"
    );

    let process = artifact("test-module", "1.0.0", component("x"), |manifest| {
        manifest.kind = hotswap_package::Kind::Process;
    });
    assert!(matches!(
        refused(&host, process).await,
        PrepareError::WrongKind { .. }
    ));
    let cramped = release(|manifest| manifest.limits.memory = ByteSize(100));
    assert!(matches!(
        refused(&host, cramped).await,
        PrepareError::OverLimit(_)
    ));
}

fn wat_core(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_host_makes_room_by_freeing_idle_instances_then_refuses() {
    let host = host_with(|config| config.instances_max = 2);
    let first = start(&host, release(|_| {})).await;
    let second = start(&host, artifact("second", "1.0.0", component("2"), |_| {})).await;
    // Both instances are idle: a third release takes the place of one.
    let third = start(&host, artifact("third", "1.0.0", component("3"), |_| {})).await;
    assert_eq!(text(&third, "/ok").await, "3");
    assert_eq!(text(&first, "/ok").await, "fine");
    let busy: Vec<_> = (0..2).map(|_| tokio::spawn(first.handle(get("/wait")))).collect();
    while first.usage().in_flight < 2 || first.usage().instances < 2 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(ask(&second, "/ok").await, Err(Failure::NotStarted(_))));
    let fourth = host
        .prepare(artifact("fourth", "1.0.0", component("4"), |_| {}))
        .await
        .unwrap();
    assert!(matches!(
        fourth.start(Launch::default()).await,
        Err(StartError::NoRoom(_))
    ));
    for request in busy {
        assert!(request.await.unwrap().is_ok());
    }
    assert_eq!(text(&second, "/ok").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_code_is_kept_and_what_is_damaged_is_compiled_anew() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = dir.path().join("compiled");
    let fresh = || host_with(|config| config.cache_dir = Some(cache_dir.clone()));
    let files = || -> Vec<_> {
        std::fs::read_dir(&cache_dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    drop(start(&fresh(), release(|_| {})).await);
    let [file] = files().try_into().unwrap();
    let whole = std::fs::read(&file).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&cache_dir), mode(&file)), (0o700, 0o600));
    }

    // A sound file is used as it is: it stays the same file.
    let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(text(&start(&fresh(), release(|_| {})).await, "/ok").await, "fine");
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), modified);

    for damage in [0, 8, 40, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[damage] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(text(&start(&fresh(), release(|_| {})).await, "/ok").await, "fine");
        assert_eq!(std::fs::read(&file).unwrap(), whole, "byte {damage}");
    }
    std::fs::write(&file, &whole[..20]).unwrap();
    assert_eq!(text(&start(&fresh(), release(|_| {})).await, "/ok").await, "fine");
    // A sound file under another release's name is that release's no more than a damaged one.
    let other = artifact("test-module", "2.0.0", component("other"), |_| {});
    let name = file.file_name().unwrap().to_str().unwrap();
    let stolen = cache_dir.join(format!("{}{}", other.digest.hex(), &name[64..]));
    std::fs::copy(&file, stolen).unwrap();
    assert_eq!(text(&start(&fresh(), other).await, "/ok").await, "other");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_release_prepared_by_many_at_once_is_compiled_once() {
    let host = host();
    let artifact = release(|_| {});
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (host, artifact) = (host.clone(), artifact.clone());
            tokio::spawn(async move { host.prepare(artifact).await.unwrap() })
        })
        .collect();
    let mut prepared: Vec<Arc<dyn Prepared>> = Vec::new();
    for task in tasks {
        prepared.push(task.await.unwrap());
    }
    assert_eq!(host.compilations(), 1);
    for prepared in prepared {
        assert_eq!(
            text(&prepared.start(Launch::default()).await.unwrap(), "/ok").await,
            "fine"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_finds_those_values_that_its_manifest_asks_for_and_does_not_start_without_them() {
    let host = host();
    let asks = artifact("test-module", "1.0.0", hostile::component("fine"), |manifest| {
        manifest.capabilities.environment = vec!["LEVEL".to_owned(), "REGION".to_owned()];
    });
    let digest = asks.digest;
    let prepared = host.prepare(asks).await.unwrap();
    let launch = |keys: &[&str]| Launch {
        config: 7,
        values: keys
            .iter()
            .map(|key| ((*key).to_owned(), "s3cret".to_owned()))
            .collect(),
        node: None,
    };
    let instance = prepared
        .start(launch(&["LEVEL", "REGION", "UNASKED"]))
        .await
        .unwrap();
    assert_eq!(text(&instance, "/vars").await, "c", "two of three");
    assert_eq!(
        (instance.digest(), instance.label()),
        (digest.under(7), "1.0.0@7")
    );
    let lacking = prepared.start(launch(&["LEVEL"])).await;
    let Err(StartError::NotGiven(missing)) = lacking else {
        panic!("it started")
    };
    assert_eq!(missing, ["the variable REGION"]);
    let told = format!("{:?}", launch(&["LEVEL"]));
    assert!(told.contains("LEVEL") && !told.contains("s3cret"), "{told}");
}
