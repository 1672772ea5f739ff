//! Packets that are sent through a loaded program, at its hook or not, to see what it does with them.

use std::os::fd::AsFd;

use hotswap_package::{Attached, Ebpf, Probe};

use super::sys;

/// Room for the frame that a program leaves: it may have grown.
const OUTPUT_BYTES_MAX: usize = 4_096;

/// Sends a manifest's probes through the program of this name.
pub(super) fn run(ebpf: &Ebpf, attached: &Attached, program: impl AsFd) -> Result<(), String> {
    let program = program.as_fd();
    let mut probes = ebpf.probes.iter().filter(|probe| probe.program == attached.name);
    probes.try_for_each(|probe| send(probe, attached, program))
}

fn send(probe: &Probe, attached: &Attached, program: impl AsFd) -> Result<(), String> {
    let (name, through, hook) = (&probe.name, &attached.name, attached.attach);
    let packet = Probe::bytes(&probe.packet)?;
    let mut left = vec![0; OUTPUT_BYTES_MAX];
    let (returned, len) = sys::test_run(program, &packet, &mut left)
        .map_err(|error| format!("the probe {name:?} can't be sent through {through}: {error}"))?;
    if returned != probe.returns {
        return Err(format!(
            "the probe {name:?} through {through} came to {}, and should to {}",
            hook.verdict(returned),
            hook.verdict(probe.returns)
        ));
    }
    let Some(output) = &probe.output else {
        return Ok(());
    };
    let (is, wanted) = (&left[..len.min(left.len())], Probe::bytes(output)?);
    let differs = is.iter().zip(&wanted).position(|(is, wanted)| is != wanted);
    match differs {
        Some(at) => Err(format!(
            "the probe {name:?} through {through} left another frame than it should: byte {at} is {:02x}, not {:02x}",
            is[at], wanted[at]
        )),
        None if is.len() != wanted.len() => Err(format!(
            "the probe {name:?} through {through} left {} bytes, and should leave {}",
            is.len(),
            wanted.len()
        )),
        None => Ok(()),
    }
}
