//! No secret leaves by a door that it did not come in by: a server and its agents use every one of theirs, rightly and
//! wrongly, while they log all they can; then every byte that they left is searched.

mod api;
mod fleet;
mod needle;
mod places;
mod sink;

use std::path::Path;

use hotswap_package::Package;
use hotswap_runtime::testing::hostile;
use reqwest::Method;
use serde_json::{Value, json};

use api::Api;
use fleet::{Fleet, Logged};
use needle::Secret;
use places::Places;

const FIRST_PASSWORD: &str = "the first, of this run alone";
const NEW_PASSWORD: &str = "the second, after a change";
const ADAS_PASSWORD: &str = "what she chose for herself";
const WRONG_PASSWORD: &str = "a wrong password, nearly right";
const WEBHOOK_PATH: &str = "/services/T0/webhook-path-that-nobody-guesses";
const WEBHOOK_SECRET: &str = "webhooks are signed with this";
const FILE_SECRET: &str = "a module's secret in a file";
const VARIABLE_SECRET: &str = "a module's secret in a variable";
const CUSTOMERS_TOKEN: &str = "a-customers-own-bearer-token";
const CUSTOMERS_QUERY: &str = "a-customers-query-string";
const CUSTOMERS_BODY: &str = "what a customer posted";

/// A module that finds two secrets among its variables.
const MANIFEST: &str = "name = \"counter\"\nversion = \"1.0.0\"\nentry = \"module.wasm\"\n[[routes]]\nprefix = \"/\"\n\
                        [capabilities]\nenvironment = [\"PASSWORD\", \"KEY\"]\n[[smoke]]\nname = \"answers\"\npath = \"/ok\"\n";

/// What a run collects.
struct Run {
    fleet: Fleet,
    api: Api,
    secrets: Vec<Secret>,
}

#[test]
fn no_secret_of_a_fleet_is_logged_kept_or_told() {
    let fleet = Fleet::start(FIRST_PASSWORD, WEBHOOK_PATH, WEBHOOK_SECRET);
    let authority = std::fs::read_to_string(fleet.path("server/ca/authority.pem")).unwrap();
    let api = Api::new(&fleet.url, authority);
    let mut run = Run {
        fleet,
        api,
        secrets: vec![
            Secret::text("the first password", FIRST_PASSWORD),
            Secret::text("a webhook's signing secret", WEBHOOK_SECRET),
            Secret::text("a webhook's address", WEBHOOK_PATH).belongs_in(&["the webhook's receiver"]),
        ],
    };
    run.people();
    let token = run.programs();
    let agents = run.nodes();
    run.release(&token);
    run.traffic(agents);
    run.reading();
    run.search();
}

impl Run {
    fn secret(&mut self, name: &str, text: &str) {
        self.secrets.push(Secret::text(name, text));
    }

    fn token_of(&self, user: &str) -> (String, String) {
        let file = self.fleet.path(user).join("credentials.json");
        let kept: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let login = kept["logins"].as_object().unwrap().values().next().unwrap();
        let text = |field: &str| login[field].as_str().unwrap().to_owned();
        (text("token"), text("refreshToken"))
    }

    fn ask(&mut self, token: &str, method: Method, path: &str, body: Option<Value>) -> (u16, String) {
        let bearer = format!("Bearer {token}");
        self.api.ask(method, path, &[("authorization", &bearer)], body)
    }

    /// Passwords and sessions.
    fn people(&mut self) {
        self.secret("a wrong password", WRONG_PASSWORD);
        self.secret("a new password", NEW_PASSWORD);
        self.secret("a user's password", ADAS_PASSWORD);
        let (wrong, first) = (
            self.fleet.give("wrong", WRONG_PASSWORD),
            self.fleet.give("first", FIRST_PASSWORD),
        );
        let second = self.fleet.give("second", NEW_PASSWORD);
        let login = |file: &str| ["login", "admin", "--password-file", file].map(str::to_owned);
        let run = |run: &mut Self, words: [String; 4]| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            run.fleet.run(&words)
        };
        run(self, login(&wrong)).exits(2);
        // A password where the username belongs.
        self.fleet
            .run(&["login", WRONG_PASSWORD, "--password-file", &wrong])
            .exits(2);
        run(self, login(&first)).exits(0);
        let (token, refresh) = self.token_of("admin");
        for (name, text) in [("an access token", &token), ("a refresh token", &refresh)] {
            self.secret(name, text);
        }
        let change = |current: &str| json!({ "currentPassword": current, "newPassword": NEW_PASSWORD });
        let path = "/api/v1/authentication/password";
        let refused = self.ask(&token, Method::POST, path, Some(change(WRONG_PASSWORD)));
        assert!(refused.0 >= 400, "{refused:?}");
        let changed = self.ask(&token, Method::POST, path, Some(change(FIRST_PASSWORD)));
        assert_eq!(changed.0, 204, "{changed:?}");
        run(self, login(&second)).exits(0);
        let (token, refresh) = self.token_of("admin");
        let kept = &["admin/credentials.json"];
        self.secrets
            .push(Secret::text("an access token in use", &token).belongs_in(kept));
        self.secrets
            .push(Secret::text("a refresh token in use", &refresh).belongs_in(kept));

        // Somebody else, whose session ends because a refresh token is used twice.
        let add = [
            "user",
            "add",
            "ada",
            "--email",
            "a@example.com",
            "--role",
            "Deployer",
            "-o",
            "json",
        ];
        let made = self.fleet.run(&add).exits(0).json();
        let one_time = made["oneTimePassword"].as_str().unwrap().to_owned();
        self.secrets
            .push(Secret::text("a one-time password", &one_time).belongs_in(&["what `user add ada` said"]));
        let (one_time, chosen) = (
            self.fleet.give("one-time", &one_time),
            self.fleet.give("chosen", ADAS_PASSWORD),
        );
        let words = [
            "login",
            "ada",
            "--password-file",
            &one_time,
            "--new-password-file",
            &chosen,
        ];
        self.fleet.run_as("ada", &[], &words).exits(0);
        let (token, refresh) = self.token_of("ada");
        let kept = &["ada/credentials.json"];
        self.secrets
            .push(Secret::text("ada's access token", &token).belongs_in(kept));
        self.secrets
            .push(Secret::text("ada's refresh token", &refresh).belongs_in(kept));
        let answered = ["what POST /api/v1/authentication/refresh answered"];
        for refresh in [refresh.clone(), "hsr_not-a-refresh-token-at-all".to_owned()] {
            let body = json!({ "refreshToken": refresh });
            let (status, answer) =
                self.api
                    .ask(Method::POST, "/api/v1/authentication/refresh", &[], Some(body));
            if status == 200 {
                let answer: Value = serde_json::from_str(&answer).unwrap();
                for field in ["token", "refreshToken"] {
                    let next = answer[field].as_str().unwrap();
                    let next = Secret::text(format!("ada's next {field}"), next);
                    self.secrets.push(next.belongs_in(&answered));
                }
            }
        }
        for path in ["/api/v1/users", "/api/v1/deployments"] {
            let forged = self.ask(&format!("{token}x"), Method::GET, path, None);
            assert_eq!(forged.0, 401, "{forged:?}");
        }
    }

    /// Tokens for programs, also where they don't belong. Returns one.
    fn programs(&mut self) -> String {
        let made = self
            .fleet
            .run(&["token", "create", "ci", "--role", "Deployer"])
            .exits(0);
        let token = made.stdout.trim().to_owned();
        self.secrets
            .push(Secret::text("an API token", &token).belongs_in(&["what `token create ci` said"]));
        let (admin, _) = self.token_of("admin");
        let bearer = format!("Bearer {admin}");
        let headers = [("authorization", &*bearer), ("idempotency-key", "once")];
        for (path, field, what, body) in [
            (
                "/api/v1/tokens",
                "token",
                "an API token under a key",
                json!({ "name": "x", "role": "Viewer" }),
            ),
            (
                "/api/v1/join-tokens",
                "token",
                "a join token under a key",
                json!({ "environment": "Development" }),
            ),
            (
                "/api/v1/users/ada/reset-password",
                "oneTimePassword",
                "a reset one-time password",
                json!({}),
            ),
        ] {
            let (status, answer) = self.api.ask(Method::POST, path, &headers, Some(body.clone()));
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert!(status < 300, "{path}: {status} {answer}");
            let told = answer[field].as_str().unwrap_or_else(|| panic!("{answer}"));
            let home = format!("what POST {path} answered");
            self.secrets.push(Secret::text(what, told).belongs_in(&[&home]));
            // The retry's answer is searched for what the first one told: it must not be what makes it be found twice.
            let (_, again) = self.api.ask(Method::POST, path, &headers, Some(body));
            assert!(
                !again.contains(told) || path.ends_with("reset-password"),
                "{path} tells again"
            );
        }
        let wrong = format!("/api/v1/deployments?cursor={token}");
        assert_eq!(self.ask(&admin, Method::GET, &wrong, None).0, 400);
        let wrong = json!({ "name": "x", "role": token });
        assert_eq!(
            self.ask(&admin, Method::POST, "/api/v1/tokens", Some(wrong)).0,
            400
        );
        for bearer in [
            format!("Bearer {token}x"),
            format!("Basic {token}"),
            token.clone(),
        ] {
            let headers = [("authorization", &*bearer)];
            let refused = self.api.ask(Method::GET, "/api/v1/nodes", &headers, None);
            assert_eq!(refused.0, 401, "{refused:?}");
        }
        token
    }

    fn join_token(&mut self, name: &str, more: &[&str]) -> String {
        let words = [&["node", "token", "create"], &["--env=Development"][..], more].concat();
        let token = self.fleet.run(&words).exits(0).stdout.trim().to_owned();
        let secret = token.split('.').nth(1).unwrap();
        let home = ["what `node token create` said"];
        self.secrets
            .push(Secret::text(format!("{name}'s secret"), secret).belongs_in(&home));
        token
    }

    /// A node that joins and renews, and nodes that are not let in.
    fn nodes(&mut self) -> Vec<Logged> {
        self.secret("a module's secret in a file", FILE_SECRET);
        self.secret("a module's secret in a variable", VARIABLE_SECRET);
        self.fleet.give("secrets/counter/db", &format!("{FILE_SECRET}\n"));
        let token = self.join_token("a join token", &["--uses=5"]);
        let file = self.fleet.give("join", &token);
        let mut command = self.fleet.agent("node-1");
        command.args(["--join-token-file", &file]);
        let mut node = self.fleet.start_agent("node-1", &mut command);
        node.eventually_logs("joined: this node has a certificate");
        let pem = self.fleet.path("agents/node-1/node.pem");
        let first = std::fs::read_to_string(&pem).unwrap();
        self.secrets
            .push(Secret::pem("the key of a node's former certificate", &first));
        node.eventually_logs("the certificate was renewed");

        let used_up = self.join_token("a used-up join token", &[]);
        let expired = self.join_token("an expired join token", &["--expires=1ms"]);
        let mut others = Vec::new();
        let (start, _) = token.rsplit_once('.').unwrap();
        for (name, token, why) in [
            ("node-2", used_up.clone(), "joined: this node has a certificate"),
            ("node-3", used_up, "join_token_used_up"),
            ("node-4", expired, "join_token_expired"),
            ("node-5", format!("{start}.{}", "0".repeat(64)), "other_authority"),
        ] {
            let mut command = self.fleet.agent(name);
            let mut other = self
                .fleet
                .start_agent(name, command.env("HOTSWAP_JOIN_TOKEN", &token));
            other.eventually_logs(why);
            others.push(other);
        }
        // What is no token any more, in a variable and in a file.
        let broken = token.replace('.', ":");
        let mut by_variable = self.fleet.agent("node-6");
        by_variable.env("HOTSWAP_JOIN_TOKEN", &broken);
        let output = by_variable.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = [output.stdout, output.stderr].concat();
        self.fleet.said.push((
            "agent with a broken token".to_owned(),
            String::from_utf8(said).unwrap(),
        ));
        let file = self.fleet.give("broken", &broken);
        let mut by_file = self.fleet.agent("node-7");
        let mut other = self
            .fleet
            .start_agent("node-7", by_file.args(["--join-token-file", &file]));
        other.eventually_logs("not a join token");
        others.push(other);
        others.push(node);
        others
    }

    /// A module with secrets, by a program's token.
    fn release(&mut self, token: &str) {
        let package = Package::assemble(MANIFEST.as_bytes(), &hostile::component("fine")).unwrap();
        let file = self.fleet.path("given/counter.hsm");
        std::fs::write(&file, &package.file).unwrap();
        let signer = self.fleet.path("given/trust");
        let key = std::fs::read_to_string(signer.join("signer.key")).unwrap();
        self.secrets.push(Secret::pem("a signer's key", &key));
        let set = [
            "config",
            "set",
            "counter",
            "PASSWORD=file:db",
            "KEY=env:API",
            "--env=development",
        ];
        let variables = [("HOTSWAP_TOKEN", token)];
        for words in [
            &[
                "module",
                "push",
                file.to_str().unwrap(),
                "--signer",
                signer.to_str().unwrap(),
            ][..],
            &set,
            &["deploy", "counter", "1.0.0", "--to", "Development", "--watch"],
        ] {
            self.fleet.run_as("ci", &variables, words).exits(0);
        }
        self.fleet.run(&["key", "rotate"]).exits(0);
    }

    /// Customers' requests; then a node's certificate is revoked.
    fn traffic(&mut self, agents: Vec<Logged>) {
        self.secret("a customer's token", CUSTOMERS_TOKEN);
        self.secret("a customer's query", CUSTOMERS_QUERY);
        self.secret("a customer's body", CUSTOMERS_BODY);
        let mut agents = agents;
        let mut node = agents.pop().unwrap();
        let (ingress, metrics) = (node.url(), node.field("/metrics", "url"));
        let bearer = format!("Bearer {CUSTOMERS_TOKEN}");
        let cookie = format!("session={CUSTOMERS_TOKEN}");
        let headers = [("authorization", &*bearer), ("cookie", &*cookie)];
        for path in ["/vars", "/ok", "/gush", "/trap"] {
            let url = format!("{ingress}{path}?token={CUSTOMERS_QUERY}");
            let body = Some(json!({ "text": CUSTOMERS_BODY }));
            let (status, answer) = self.api.ask(Method::POST, &url, &headers, body);
            assert!(
                path != "/vars" || (status, &*answer) == (200, "c"),
                "two variables: {answer}"
            );
        }
        assert_eq!(self.api.ask(Method::GET, &metrics, &[], None).0, 200);
        let fleet = &self.fleet;
        until("a deployment's end is told", || {
            fleet.webhooks.has("DeploymentCompleted")
        });
        until("a request's span is told", || fleet.spans.has("url.path"));
        self.fleet.run(&["node", "revoke", "node-1"]).exits(0);
        node.eventually_logs("certificate_revoked");
        // It joins anew by another token, which its file has by then.
        node.eventually_logs("join_token_barred");
        let token = self.join_token("a later join token", &[]);
        self.fleet.give("join", &token);
        let joined = "joined: this node has a certificate";
        let log = self.fleet.path("said/node-1.stderr");
        until("the node joins anew", || {
            String::from_utf8_lossy(&std::fs::read(&log).unwrap())
                .matches(joined)
                .count()
                > 1
        });
        node.stop();
        agents.into_iter().for_each(Logged::stop);
    }

    /// All that can be asked for.
    fn reading(&mut self) {
        let list = self.fleet.run(&["deployments", "-o", "json"]).exits(0).json();
        let id = list[0]["executionId"].as_str().unwrap().to_owned();
        for words in [
            &["why", &*id][..],
            &["status", &id],
            &["audit", "list", "--limit", "1000", "-o", "json"],
            &["nodes", "show", "node-1", "-o", "json"],
            &["node", "token", "list", "-o", "json"],
            &["token", "list", "-o", "json"],
            &["user", "list", "-o", "json"],
            &["key", "list", "-o", "json"],
            &["webhooks", "-o", "json"],
            &["config", "get", "counter", "--env", "Development", "-o", "json"],
        ] {
            self.fleet.run(words).exits(0);
        }
        self.fleet.run(&["doctor"]);
        let webhook = format!("http://{}{WEBHOOK_PATH}", self.fleet.webhooks.address);
        let mut show = hotswap_config_show();
        let output = show.env("HOTSWAP_SERVER_WEBHOOKS", &webhook).output().unwrap();
        assert!(output.status.success());
        let said = String::from_utf8(output.stdout).unwrap();
        self.fleet.said.push(("config show".to_owned(), said));
        // A faulty address is refused, and not told.
        let mut faulty = crate::support::hotswap();
        faulty.args(["server", "--webhook", &webhook.replace("http:", "ftp:")]);
        let output = faulty.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        self.fleet
            .said
            .push(("server with a faulty webhook".to_owned(), said));
        let (token, _) = self.token_of("admin");
        for path in [
            "/metrics",
            "/api/v1/events?after=0&follow=false",
            "/api/v1/audit?limit=1000",
            "/api/v1/audit/verify",
            "/api/v1/clusters",
            "/api/v1/fleet",
            "/api/v1/modules",
            "/api/v1/keys",
            "/api/v1/authentication/me",
            "/.well-known/jwks.json",
        ] {
            let answer = self.ask(&token, Method::GET, path, None);
            assert_eq!(answer.0, 200, "{path}: {answer:?}");
        }
        let (data, backup) = (self.fleet.path("server"), self.fleet.path("backup.tar"));
        let words = [
            "backup",
            "--data",
            data.to_str().unwrap(),
            "--to",
            backup.to_str().unwrap(),
        ];
        self.fleet.run(&words).exits(0);
    }

    /// Stops what still runs, and searches it all.
    fn search(self) {
        let Self {
            fleet,
            api,
            mut secrets,
        } = self;
        let (server, said, dir) = (fleet.server, fleet.said, fleet.dir);
        server.stop();
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
        let key = Secret::pem("the authority's key", &read("server/ca/authority.key"));
        secrets.push(key.belongs_in(&["server/ca/authority.key", "backup/ca/authority.key"]));
        let key = Secret::pem("a node's key", &read("agents/node-1/node.pem"));
        secrets.push(key.belongs_in(&["agents/node-1/node.pem"]));
        let keys = signing_keys(&dir.path().join("server/hotswap.db"));
        assert_eq!(keys.len(), 2, "one signs, one has signed");
        for key in keys {
            secrets.push(Secret::key("a key that signs access tokens", &key).belongs_in(&[
                "server/hotswap.db",
                "server/hotswap.db, table signing_key",
                "backup/hotswap.db",
                "backup/hotswap.db, table signing_key",
            ]));
        }
        let unpacked = dir.path().join("backup");
        std::fs::create_dir(&unpacked).unwrap();
        let tar = std::process::Command::new("tar")
            .arg("-xpf")
            .arg(dir.path().join("backup.tar"))
            .arg("-C")
            .arg(&unpacked)
            .status()
            .unwrap();
        assert!(tar.success());

        let mut places = Places::default();
        for folder in ["said", "server", "agents", "admin", "ada", "backup"] {
            places.add_folder(folder, &dir.path().join(folder));
        }
        places.add("the webhook's receiver", fleet.webhooks.kept());
        places.add("the spans' receiver", fleet.spans.kept());
        for (command, text) in said {
            places.add(format!("what `{command}` said"), text);
        }
        for (asked, text) in api.answers {
            places.add(format!("what {asked} answered"), text);
        }
        println!("{} secrets, {} bytes searched", secrets.len(), places.len());
        let faults = places.faults(&secrets);
        assert!(faults.is_empty(), "\n{faults}");
    }
}

fn hotswap_config_show() -> std::process::Command {
    let mut command = crate::support::hotswap();
    command.args(["config", "show"]);
    command
}

/// The private keys that a database keeps, in PKCS #8.
fn signing_keys(database: &Path) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let database = rusqlite::Connection::open(database).unwrap();
    let mut records = database.prepare("select record from signing_key").unwrap();
    let records = records.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let keys = records.map(|record| {
        let record: Value = serde_json::from_str(&record.unwrap()).unwrap();
        let secret = record["secret"].as_str().unwrap();
        base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(secret)
            .unwrap()
    });
    keys.collect()
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, so: impl Fn() -> bool) {
    let end = std::time::Instant::now() + crate::fleet::DEADLINE;
    while !so() {
        assert!(std::time::Instant::now() < end, "never came: {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
