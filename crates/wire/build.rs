//! Generates the protocol's code from `proto/`, in Rust all the way: no protoc is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["hotswap/agent/v1/agent.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".hotswap.agent.v1.ArtifactChunk.data")
        .compile_fds(files)?;
    Ok(())
}
