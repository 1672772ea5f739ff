//! The console in a browser, where there is one: that its scripts run, and what they show.

use std::process::Command;

use crate::fleet::Server;

/// Browsers that are tried.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

#[test]
fn the_console_asks_who_somebody_is_and_shows_nothing_before() {
    let there_is = |program: &&&str| Command::new(program).arg("--version").output().is_ok();
    let Some(browser) = BROWSERS.iter().find(there_is) else {
        println!("left out: no browser is here, so the console was not looked at");
        return;
    };
    let server = Server::start(&[]);
    let profile = server.dir.path().join("profile");
    let ran = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=10000",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--dump-dom", &server.process.url])
        .output()
        .unwrap();
    let page = String::from_utf8_lossy(&ran.stdout);
    // What the scripts drew: the page itself holds neither.
    for shown in ["<h1>Hotswap</h1>", "name=\"password\""] {
        assert!(page.contains(shown), "{shown} is not on the page: {page}");
    }
    assert!(!page.contains("Environments"), "{page}");
}
