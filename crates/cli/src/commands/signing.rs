//! Signatures, without a server: make a signer, sign, verify.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use hotswap_core::ids::Digest;
use hotswap_trust::{
    Authority, SIGNATURE_BYTES_MAX, SIGNATURE_EXTENSION, Signer, SigningIdentity, TrustPolicy, UnixSeconds,
};
use serde_json::json;

use super::module::read_file;
use crate::args;
use crate::exit::Exit;
use crate::output::Output;
use crate::problem::Problem;

/// Files of a signer's folder.
const KEY_FILE: &str = "signer.key";
const CERTIFICATE_FILE: &str = "signer.pem";
const CHAIN_FILE: &str = "chain.pem";
const ROOT_FILE: &str = "root.pem";
pub(crate) const TRUST_FILE: &str = "trust.toml";

/// Names in the certificates that `trust init` makes.
const ROOT_NAME: &str = "Hotswap development root";
const SIGNER_NAME: &str = "Hotswap development signer";

pub(crate) fn now() -> UnixSeconds {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds(since_epoch.as_secs())
}

/// Makes a root and a signer, and writes what is to be kept of them.
pub(super) fn init(dir: &Path, output: &Output) -> anyhow::Result<Exit> {
    for file in [TRUST_FILE, ROOT_FILE, KEY_FILE, CERTIFICATE_FILE] {
        if dir.join(file).exists() {
            let shown = dir.display();
            return Err(
                Problem::usage(format!("{shown} has a {file} already, which is left as it is"))
                    .next("name another folder, or remove this one if nothing trusts it any more")
                    .into(),
            );
        }
    }
    let (trust_file, signer) = make_trust(dir, SIGNER_NAME)?;
    if output.is_json() {
        output.json(&json!({ "trustFile": trust_file, "signer": signer }))?;
        return Ok(Exit::Done);
    }
    let shown = dir.display();
    output.line(format!("made a root and a signer for development in {shown}"))?;
    output.line(format!("  hotswap server --trust {}", trust_file.display()))?;
    output.line(format!(
        "  hotswap agent --node web-1 --environment Development --trust {}",
        trust_file.display()
    ))?;
    output.line(format!("  hotswap module push DIR --signer {shown}"))?;
    output.line(format!(
        "whoever has {} can sign modules for whoever trusts this root: keep it secret",
        dir.join(KEY_FILE).display()
    ))?;
    Ok(Exit::Done)
}

/// A folder with a new root and a signer under it; returns its trust file and the signer's folder. The root's key is
/// never written.
pub(crate) fn make_trust(dir: &Path, signer_name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    let authority = Authority::new(ROOT_NAME, now())?;
    let signer = authority.issue_signer(signer_name)?;
    fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    write_secret(&dir.join(KEY_FILE), signer.key.as_bytes())?;
    let trust_file = dir.join(TRUST_FILE);
    let rules = format!(
        "# Whose modules are taken. Read anew for every module, so that changes need no restart.\n\
         roots = [\"{ROOT_FILE}\"]\n\n\
         # Revocation lists; with any, every issuer needs one.\n\
         # revocation-lists = [\"root.crl.pem\"]\n\n\
         # Which signer may sign which modules. Without a rule every signer under the roots may sign every module.\n\
         # [[signers]]\n\
         # name = \"{signer_name}\"\n\
         # modules = [\"payment-*\"]\n"
    );
    for (file, content) in [
        (CERTIFICATE_FILE, signer.certificate.as_str()),
        (ROOT_FILE, authority.root().certificate.as_str()),
        (TRUST_FILE, rules.as_str()),
    ] {
        let path = dir.join(file);
        fs::write(&path, content).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok((trust_file, dir.to_owned()))
}

/// Writes a file that its owner alone may read.
fn write_secret(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(content));
    written.with_context(|| format!("failed to write {}", path.display()))
}

/// The identity that options name, if they name one.
pub(super) fn identity(args: &args::Identity) -> anyhow::Result<Option<SigningIdentity>> {
    let (key, certificate, chain) = match (&args.signer, &args.key, &args.cert) {
        (Some(dir), _, _) => {
            let chain = dir.join(CHAIN_FILE);
            let chain = chain.exists().then_some(chain);
            (dir.join(KEY_FILE), dir.join(CERTIFICATE_FILE), chain)
        }
        (None, Some(key), Some(certificate)) => (key.clone(), certificate.clone(), args.chain.clone()),
        _ => return Ok(None),
    };
    Ok(Some(read_identity(&key, &certificate, chain.as_deref())?))
}

/// The identity in a folder that [`make_trust`] made.
pub(crate) fn identity_in(dir: &Path) -> anyhow::Result<SigningIdentity> {
    read_identity(&dir.join(KEY_FILE), &dir.join(CERTIFICATE_FILE), None)
}

fn read_identity(key: &Path, certificate: &Path, chain: Option<&Path>) -> anyhow::Result<SigningIdentity> {
    let chain = chain.map(open).transpose()?;
    let identity = SigningIdentity::new(&open(key)?, &open(certificate)?, chain.as_deref());
    Ok(identity
        .map_err(|error| Problem::usage(format!("nothing is signed with {}: {error}", key.display())))?)
}

fn open(path: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(fs::read(path).map_err(|error| {
        Problem::usage(format!("{} can't be read: {error}", path.display()))
            .next("`hotswap trust init` makes a key and its certificate; --key and --cert name others")
    })?)
}

/// A signature of the package with this digest.
pub(crate) fn make(identity: &SigningIdentity, digest: &Digest) -> anyhow::Result<Vec<u8>> {
    Ok(identity.sign(digest, now())?)
}

/// Where a package's signature lies.
pub(super) fn beside(package: &Path) -> PathBuf {
    let mut name = package.as_os_str().to_owned();
    name.push(".");
    name.push(SIGNATURE_EXTENSION);
    name.into()
}

/// A signature from a file; its size is the verifier's to judge, within reason.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = fs::File::open(path)
        .and_then(|file| file.take(SIGNATURE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        Problem::usage(format!("the signature {} can't be read: {error}", path.display()))
            .next("`hotswap module sign PACKAGE --signer DIR` makes one")
    })?;
    Ok(bytes)
}

/// Signs a package file.
pub(super) fn sign(package: &Path, args: &args::Identity, output: &Output) -> anyhow::Result<Exit> {
    let identity = identity(args)?.ok_or_else(|| {
        Problem::usage("nobody is named to sign")
            .next("`--signer DIR` (`hotswap trust init` makes one), or `--key FILE --cert FILE`")
    })?;
    let digest = read_file(package)?.digest;
    let file = beside(package);
    fs::write(&file, make(&identity, &digest)?)
        .with_context(|| format!("failed to write {}", file.display()))?;
    if output.is_json() {
        output.json(&json!({ "file": file, "signer": identity.subject(), "digest": digest }))?;
    } else {
        output.line(format!(
            "signed by {} into {}",
            identity.subject(),
            file.display()
        ))?;
    }
    Ok(Exit::Done)
}

/// Judges a package's signature as a server or node would.
pub(super) fn verify(args: &args::Verify, output: &Output) -> anyhow::Result<Exit> {
    let package = read_file(&args.package)?;
    let signature = read(&args.signature.clone().unwrap_or_else(|| beside(&args.package)))?;
    let policy = policy(args)?;
    let verdict = hotswap_trust::verify(
        &package.digest,
        &package.manifest.name,
        &signature,
        &policy,
        now(),
    );
    match verdict {
        Ok(signer) => {
            show(&signer, output)?;
            Ok(Exit::Done)
        }
        Err(error) => Err(Problem::failed(error.to_string()).into()),
    }
}

fn show(signer: &Signer, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(signer).map_err(Into::into);
    }
    output.line(format!("good: signed by {}", signer.subject))?;
    output.line(format!("  issued by {}, root {}", signer.issuer, signer.root))?;
    output.line(format!("  certificate sha256:{}", signer.fingerprint))?;
    for warning in &signer.warnings {
        output.line(format!("  warning: {warning}"))?;
    }
    Ok(())
}

fn policy(args: &args::Verify) -> anyhow::Result<TrustPolicy> {
    if let Some(file) = &args.trust {
        return TrustPolicy::load(file).map_err(|error| {
            let because = std::error::Error::source(&error).map(ToString::to_string);
            Problem::usage(error.to_string())
                .details(because.into_iter().collect())
                .into()
        });
    }
    let roots = args.roots.as_ref().context("the roots are missing")?;
    let faulty = |path: &Path, problem: String| Problem::usage(format!("{}: {problem}", path.display()));
    let policy = TrustPolicy::of_roots(&open(roots)?).map_err(|problem| faulty(roots, problem))?;
    match &args.crls {
        None => Ok(policy),
        Some(lists) => Ok(policy
            .with_lists(&open(lists)?)
            .map_err(|problem| faulty(lists, problem))?),
    }
}
