//! A full disk: read-only with a clear error, and back to work once there is room.

use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::StatusCode;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{TestServer, deployment, package};

/// A small file system of the test's own, gone with it.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where the test may not mount.
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null());
        mount
            .status()
            .is_ok_and(|status| status.success())
            .then(|| Self(dir))
    }

    fn fill(&self) -> std::path::PathBuf {
        let filler = self.0.path().join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        let block = [0_u8; 4_096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        filler
    }

    fn data(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server's files are let go of a moment later.
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_makes_it_read_only_until_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: this test may not mount a file system");
        return;
    };
    let server = TestServer::start_in(TempDir::new_in(disk.data()).unwrap()).await;
    server.push(&package("pay", "1.0.0")).await;
    let kept = server.deploy("1.0.0", "Development").await;
    let filler = disk.fill();
    let mut body = deployment("pay", "1.0.0", "Development");
    body["description"] = json!("x".repeat(1_000));
    let refused = loop {
        let (status, answer) = server.post("/api/v1/deployments", &body).await;
        if status != StatusCode::ACCEPTED {
            break (status, answer);
        }
    };
    assert_eq!(
        (refused.0, &refused.1["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("read_only")),
        "{refused:?}"
    );
    assert!(refused.1["error"].as_str().unwrap().contains("disk is full"));
    assert_eq!(server.get("/health").await.1["status"], "Degraded");
    let (status, health) = server.get("/health/ready").await;
    assert_eq!(
        (status, &health["checks"]["storeWritable"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!(false))
    );
    assert_eq!(
        server.get(&format!("/api/v1/deployments/{kept}")).await.0,
        StatusCode::OK,
        "reads go on"
    );
    let (status, answer) = server.push(&package("pay", "1.1.0")).await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("read_only"))
    );

    std::fs::remove_file(filler).unwrap();
    server
        .until("/health", |health| health["status"] == "Healthy")
        .await;
    let taken = server.deploy("1.0.0", "Development").await;
    let (_, list) = server.get("/api/v1/deployments?limit=1").await;
    assert_eq!(list[0]["executionId"], taken.as_str());
    server.running.shutdown().await.unwrap();
}
