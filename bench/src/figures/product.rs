//! The simulator's speed; the binary's size and start.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Setting;
use crate::load::median;
use crate::processes::{Server, ServerOptions};
use crate::report::{Figure, Report, Target};

pub(super) async fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    report.section("The simulator and the binary");
    simulator(setting, report)?;
    let binary = setting.hotswap();
    size(setting, report)?;
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for round in 0..setting.pick(3, 10) {
        let options = ServerOptions::plain(&binary, setting.dir.join(format!("start-{round}")));
        for took in [&mut first, &mut again] {
            let server = Server::start(&options).await?;
            took.push(server.ready_in.as_secs_f64() * 1e3);
            server.child.stop()?;
        }
    }
    report.add(
        Figure::new("a server's first start to ready, median", median(&first), "ms")
            .wants(Target::AtMost(300.0)),
    );
    report.add(
        Figure::new("a later start to ready, median", median(&again), "ms").wants(Target::AtMost(300.0)),
    );
    Ok(())
}

fn simulator(setting: &Setting, report: &mut Report) -> Result<()> {
    let seeds = setting.pick("300", "4000");
    let output = Command::new(setting.binaries.join("hotswap-sim"))
        .args(["--seeds", seeds])
        .output()
        .context("failed to start the simulator")?;
    let told = String::from_utf8_lossy(&output.stdout);
    let last = told.lines().last().unwrap_or_default();
    if !output.status.success() {
        bail!("the simulator failed: {last}");
    }
    let number = |before: &str, after: &str| -> Result<f64> {
        let rest = last.split_once(before).context("the simulator's last line")?.1;
        let digits = rest.split_once(after).context("the simulator's last line")?.0;
        Ok(digits.parse()?)
    };
    let (rate, inputs) = (number("(", " a minute")?, number("median ", " inputs")?);
    report.add(Figure::new("simulated runs a minute", rate, "").wants(Target::AtLeast(10_000.0)));
    report.add(Figure::new("inputs of a run, median", inputs, "").wants(Target::AtLeast(500.0)));
    Ok(())
}

/// Published binaries have no symbols.
fn size(setting: &Setting, report: &mut Report) -> Result<()> {
    let stripped = setting.dir.join("stripped");
    let strip = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(setting.hotswap())
        .status();
    let (what, file) = match strip {
        Ok(status) if status.success() => ("the binary, without symbols", stripped),
        _ => (
            "the binary, with its symbols (there is no strip here)",
            setting.hotswap(),
        ),
    };
    let bytes = std::fs::metadata(file).context("the product is not built")?.len();
    report.add(Figure::new(what, bytes as f64 / 1e6, "MB").wants(Target::AtMost(60.0)));
    Ok(())
}
