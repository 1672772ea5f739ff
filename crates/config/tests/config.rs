//! The layers, from files and variables to values and faults.

use std::path::{Path, PathBuf};

use hotswap_config::{
    Config, ConfigError, Flag, Kind, Loaded, Origin, Sources, keys, load, schema, template,
};
use hotswap_core::policy::Environment;

fn sources(file: &str) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hotswap.toml");
    std::fs::write(&path, file).unwrap();
    let sources = Sources {
        file: Some(path),
        ..Sources::default()
    };
    (dir, sources)
}

fn with(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let (dir, mut sources) = sources(file);
    for (name, value) in variables {
        sources.variables.insert((*name).to_owned(), (*value).to_owned());
    }
    for (key, value) in flags {
        sources.flags.push(Flag {
            flag: "--set",
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        });
    }
    load(&sources).map_err(|error| match error {
        ConfigError::Faults(faults) => {
            // The folder has another name each time.
            let folder = format!("{}/", dir.path().display());
            faults
                .iter()
                .map(|fault| fault.to_string().replace(&folder, ""))
                .collect()
        }
        error => vec![error.to_string()],
    })
}

fn faults(file: &str) -> Vec<String> {
    with(file, &[], &[]).expect_err("it is faulty")
}

#[test]
fn a_later_layer_goes_before_an_earlier_one_and_says_so() {
    let file = "[server]\nhttp = \"127.0.0.1:1\"\nagents = \"127.0.0.1:2\"\nheartbeat = \"7s\"\n";
    let variables = [
        ("HOTSWAP_SERVER_AGENTS", "127.0.0.1:3"),
        ("HOTSWAP_SERVER_HEARTBEAT", "8s"),
    ];
    let loaded = with(file, &variables, &[("server.heartbeat", "9s")]).unwrap();
    let server = &loaded.config.server;
    assert_eq!((server.http.port(), server.agents.port()), (1, 3));
    assert_eq!(server.heartbeat.get().as_secs(), 9);
    let origin = |key: &str| {
        let effective = loaded.effective();
        effective
            .into_iter()
            .find(|value| value.key == key)
            .unwrap()
            .origin
    };
    assert!(matches!(origin("server.http"), Origin::File { line: 2, .. }));
    assert_eq!(
        origin("server.agents"),
        Origin::Variable("HOTSWAP_SERVER_AGENTS".to_owned())
    );
    assert_eq!(origin("server.heartbeat"), Origin::Flag("--set"));
    assert_eq!(origin("server.snapshot-every"), Origin::Default);
}

#[test]
fn labels_of_all_layers_add_up() {
    let loaded = with(
        "[agent.labels]\nzone = \"a\"\nrack = \"1\"\n",
        &[],
        &[("agent.labels", "zone=b")],
    )
    .unwrap();
    let labels: Vec<(&str, &str)> = loaded
        .config
        .agent
        .labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(labels, [("rack", "1"), ("zone", "b")]);
}

#[test]
fn every_fault_is_told_at_once_with_its_key_its_line_and_what_would_be_right() {
    let told = faults(
        "[server]\nhtpp = \"127.0.0.1:1\"\nheartbeat = \"soon\"\nsnapshot-every = \"many\"\n\n[agent]\nsnapshot-every = 3\n\n[sever]\n",
    );
    let expected = [
        "server.htpp (hotswap.toml:2): there is no such key; did you mean http?",
        "agent.snapshot-every (hotswap.toml:7): there is no such key here; did you mean server.snapshot-every?",
        "sever (hotswap.toml:9): there is no such key; did you mean server?",
        "server.heartbeat (hotswap.toml:3): \"soon\" is not a duration; write numbers with units, such as \"10s\", \
         \"500ms\" or \"1m 30s\"",
        "server.snapshot-every (hotswap.toml:4): invalid type: string \"many\", expected u64",
    ];
    for line in expected {
        assert!(
            told.iter().any(|fault| fault == line),
            "{line:?} is not in {told:#?}"
        );
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
}

#[test]
fn what_is_not_toml_is_shown_with_its_line() {
    let told = faults("[server]\nhttp = \n");
    assert!(
        told[0].contains("hotswap.toml is not TOML") && told[0].contains("line 2"),
        "{told:?}"
    );
}

#[test]
fn variables_are_read_by_their_keys_kind_and_slips_are_told() {
    let loaded = with(
        "",
        &[
            ("HOTSWAP_LOG", "debug"),
            ("HOTSWAP_SERVER", "http://h:1"),
            ("HOTSWAP_TOKEN", "x"),
        ],
        &[],
    );
    assert_eq!(loaded.unwrap().config.log.filter, "debug");
    let links = [
        ("HOTSWAP_SERVER_SERVICE_HOST", "10.0.0.1"),
        ("HOTSWAP_SERVER_PORT_5000_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(
        with("", &links, &[]).is_ok(),
        "Kubernetes makes such for services"
    );
    let told = with(
        "",
        &[
            ("HOTSWAP_SERVER_HTPP", "x"),
            ("HOTSWAP_SERVER_SNAPSHOT_EVERY", "x"),
        ],
        &[],
    )
    .unwrap_err();
    assert_eq!(
        told,
        [
            "HOTSWAP_SERVER_SNAPSHOT_EVERY: is \"x\"; it should be a whole number",
            "HOTSWAP_SERVER_HTPP: there is no such variable; did you mean HOTSWAP_SERVER_HTTP?",
        ]
    );
}

#[test]
fn flags_name_keys_that_there_are() {
    let told = with("", &[], &[("server.htpp", "x")]).unwrap_err();
    assert_eq!(
        told,
        ["server.htpp (--set): there is no such key; did you mean server.http?"]
    );
}

#[test]
fn environments_are_checked_together() {
    let told = faults(
        "[[environments]]\nname = \"QA\"\n[environments.policy]\nsoak-min = \"2h\"\n\n[[environments]]\nname = \"qa\"\n",
    );
    assert_eq!(
        told,
        [
            "environments[0] (hotswap.toml:1): QA: soak-max (60 min) must not be below soak-min (2 h)",
            "environments[1] (hotswap.toml:6): qa: is there twice",
        ]
    );
    let told = faults("[[environments]]\nname = \"QA\"\nstrategy = { type = \"Direct\", batch = 2 }\n");
    assert_eq!(
        told,
        ["environments[0].strategy.batch (hotswap.toml:3): is for Rolling only; leave it out"]
    );
    let told = faults("[[environments]]\nstrategy = { type = \"Direkt\" }\n");
    assert!(
        told[0].starts_with("environments[0].strategy.type (hotswap.toml:2): unknown variant `Direkt`")
            && told[0].contains("BlueGreen"),
        "{told:?}"
    );
    let told = faults("[[environments]]\nname = \"QA\"\n[environments.policy.judge]\nalpha = 2.0\n");
    assert_eq!(
        told,
        ["environments[0].policy.judge (hotswap.toml:3): alpha is 2, must be 0.000001 to 0.1"]
    );
}

#[test]
fn changes_say_what_needs_a_restart() {
    let before = with("[server]\nheartbeat = \"1s\"\n", &[], &[]).unwrap();
    let after = with(
        "[server]\nheartbeat = \"2s\"\n[log]\nfilter = \"debug\"\n",
        &[],
        &[],
    )
    .unwrap();
    let changes = before.changes(&after);
    assert_eq!(changes.live, ["log.filter"]);
    assert_eq!(changes.restart, ["server.heartbeat"]);
}

#[test]
fn the_commented_file_gives_the_defaults_with_and_without_its_comments() {
    let (_dir, as_written) = sources(&template());
    assert_eq!(load(&as_written).unwrap().config, Config::default());

    // Every `# key = value` and `# [section]` taken up, up to the part about single environments.
    let whole = template();
    let (plain, _) = whole.split_once("# Each environment may have these").unwrap();
    let taken_up: String = plain
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(text)
                if text.starts_with('[')
                    || text.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) =>
            {
                format!("{text}\n")
            }
            _ => format!("{line}\n"),
        })
        // An empty text stands for keys without a default.
        .filter(|line| !line.ends_with("= \"\"\n"))
        .collect();
    let (_dir, taken_up) = sources(&taken_up);
    let loaded = load(&taken_up).unwrap();
    assert_eq!(loaded.config.server, Config::default().server);
    assert_eq!(loaded.environments(), Some(Environment::defaults()));
}

#[test]
fn every_key_is_documented() {
    fn check(keys: &[hotswap_config::Key], path: &str) {
        for key in keys {
            let path = format!("{path}.{}", key.name);
            assert!(!key.doc.is_empty(), "{path} has no documentation");
            if let Kind::Section(inner) | Kind::Sections(inner) = &key.kind {
                check(inner, &path);
            }
        }
    }
    check(keys(), "");
}

#[test]
fn the_schema_in_docs_is_current() {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/hotswap.schema.json");
    let current = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == current,
        "docs/hotswap.schema.json is not what the keys say: BLESS=1 writes it anew"
    );
}

#[test]
fn approvers_and_freezes_are_read_and_faults_in_them_are_named() {
    let file = |starts: &str| {
        format!(
            "[[environments]]\nname = \"Production\"\napprovers = {{ needed = 2, subjects = [\"ada\", \"grace\"] }}\n\
             [[environments.freezes]]\nname = \"weekend\"\nstarts = {starts:?}\nlasts = \"60h\"\nreason = \"nobody is here\"\n"
        )
    };
    let loaded = with(&file("0 16 * * FRI"), &[], &[]).unwrap();
    let environment = loaded.environments().unwrap().remove(0);
    assert_eq!(
        (environment.approvers.needed, environment.approvers.subjects.len()),
        (2, 2)
    );
    assert_eq!(environment.freezes[0].name, "weekend");
    let faults = faults(&file("0 16 * * FRY"));
    assert!(
        faults.len() == 1 && faults[0].contains("environments[0].freezes") && faults[0].contains("weekend"),
        "{faults:?}"
    );
}

#[test]
fn what_was_only_a_flag_has_a_key_and_a_variable() {
    let file = "[server]\nwebhooks = [\"slack+https://hooks.example.com/secret\"]\n[server.rate-limits]\nlogin = 3\n";
    let variables = [("HOTSWAP_OTLP", "grpc://127.0.0.1:4317"), ("HOTSWAP_SAMPLE", "5")];
    let loaded = with(file, &variables, &[("server.rate-limits.all", "7")]).unwrap();
    let server = &loaded.config.server;
    assert_eq!((server.rate_limits.login, server.rate_limits.all), (3, 7));
    assert_eq!(server.otlp.as_deref(), Some("grpc://127.0.0.1:4317"));
    assert_eq!(loaded.config.agent.otlp, server.otlp);
    assert!((loaded.config.agent.sample_percent - 5.0).abs() < 1e-9);
    let shown = loaded.effective();
    let webhooks = shown.iter().find(|value| value.key == "server.webhooks").unwrap();
    assert!(!webhooks.value.to_string().contains("secret"), "{webhooks:?}");
    assert!(faults("[server.rate-limits]\nlogin = -1\n")[0].contains("server.rate-limits.login"));
}
