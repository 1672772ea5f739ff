//! What a release needs of a node, as nodes name what they have.

use crate::ebpf::{Attached, Hook};
use crate::manifest::{Kind, Manifest};

/// What a node names where the kernel tells its tracepoints.
const TRACEFS: &str = "tracefs";

/// Words that a node's capabilities must all have in them: the kind, and for machine code the processor
/// (`arch:x86_64`), for eBPF the least release of the kernel (`kernel>=6.6`) and where it looks tracepoints up, for kernel modules one of the releases that
/// there are builds for (`kernel:A|kernel:B`). A script needs no particular processor.
pub fn needs(manifest: &Manifest, artifact: &[u8]) -> Vec<String> {
    let mut needs = vec![manifest.kind.as_str().to_owned()];
    if manifest.kind == Kind::Process {
        needs.extend(elf_machine(artifact).map(|arch| format!("arch:{arch}")));
    }
    if let Some(ebpf) = &manifest.ebpf {
        needs.push(format!("kernel>={}", ebpf.kernel_min()));
        let looks_up = |program: &Attached| program.attach == Hook::Tracepoint;
        if ebpf.programs.iter().any(looks_up) {
            needs.push(TRACEFS.to_owned());
        }
        needs.extend(ebpf.features.iter().filter(|word| *word != TRACEFS).cloned());
    }
    if let Some(kernel) = &manifest.kernel {
        let any = kernel
            .builds
            .iter()
            .map(|build| format!("kernel:{}", build.release));
        needs.push(any.collect::<Vec<_>>().join("|"));
        // The first file of the archive stands behind its header; all are of one processor, which admission sees to.
        let first = artifact.get(512..).unwrap_or_default();
        needs.extend(elf_machine(first).map(|arch| format!("arch:{arch}")));
    }
    needs
}

/// The processor of an ELF file, named as Rust names it; its number where it is another.
fn elf_machine(file: &[u8]) -> Option<String> {
    let head = file.get(..20).filter(|head| head.starts_with(b"\x7fELF"))?;
    let number = [head[18], head[19]];
    let is_little = head[5] == 1;
    let number = if is_little {
        u16::from_le_bytes(number)
    } else {
        u16::from_be_bytes(number)
    };
    Some(match (number, is_little) {
        (3, _) => "x86".to_owned(),
        (40, _) => "arm".to_owned(),
        (62, _) => "x86_64".to_owned(),
        (183, true) => "aarch64".to_owned(),
        (243, true) => "riscv64".to_owned(),
        (22, false) => "s390x".to_owned(),
        (other, _) => format!("elf-{other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_needs_its_processor_and_a_script_none() {
        let mut file = [0u8; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18] = 62;
        assert_eq!(elf_machine(&file).unwrap(), "x86_64");
        file[18] = 183;
        assert_eq!(elf_machine(&file).unwrap(), "aarch64");
        assert_eq!(elf_machine(b"#!/bin/sh\n"), None);
        assert_eq!(elf_machine(&file[..19]), None);
    }
}
