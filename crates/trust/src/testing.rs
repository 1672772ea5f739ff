//! Signatures, good and bad, made by plain `openssl`, for tests of whatever judges them.
//!
//! `openssl` makes every key, certificate, list and signature here, and is asked for its own verdict too: a second
//! judge that shares no line with ours. Where it judges otherwise, the case says so and why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Check;

const ROOTS: (&str, &str) = ("20190101000000Z", "20490601000000Z");
const ANCIENT: (&str, &str) = ("20200101000000Z", "20210101000000Z");
const DISTANT: (&str, &str) = ("20480101000000Z", "20490101000000Z");
const PRESENT: (&str, &str) = ("20240101000000Z", "20440101000000Z");

const CONFIG: &str = "\
[ca]
default_ca = this
[this]
database = ./index.txt
serial = ./serial
new_certs_dir = .
certificate = ./ca.pem
private_key = ./ca.key
default_md = sha256
default_crl_days = 3650
crlnumber = ./crlnumber
policy = any
unique_subject = no
copy_extensions = none
[any]
commonName = supplied
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[intermediate]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[signer]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = codeSigning
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[selfsigned]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = codeSigning
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

/// Which package a signature is offered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// The one that was signed.
    Signed,
    /// The same with a byte of its artifact changed.
    OtherArtifact,
    /// The same with a byte of its manifest changed.
    OtherManifest,
    /// Another module's, signed by the same signer.
    OtherModule,
}

/// Package files' bytes: one that is signed, and others.
#[derive(Clone, Debug)]
pub struct Packages {
    /// Of a module called `payment-…`.
    pub signed: Vec<u8>,
    /// With another byte in its artifact.
    pub other_artifact: Vec<u8>,
    /// With another byte in its manifest.
    pub other_manifest: Vec<u8>,
    /// Of a module called otherwise.
    pub other_module: Vec<u8>,
}

impl Packages {
    /// The one that a case is about.
    pub fn of(&self, offered: Offered) -> &[u8] {
        match offered {
            Offered::Signed => &self.signed,
            Offered::OtherArtifact => &self.other_artifact,
            Offered::OtherManifest => &self.other_manifest,
            Offered::OtherModule => &self.other_module,
        }
    }
}

/// A signature with what is to become of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is.
    pub name: &'static str,
    /// The signature's bytes.
    pub signature: Vec<u8>,
    /// With which package it is offered.
    pub offered: Offered,
    /// The check that refuses it; `None`: it is good.
    pub refused_by: Option<Check>,
    /// Whether `openssl cms -verify` accepts it.
    pub openssl_accepts: bool,
}

/// A folder with keys and certificates of every sort.
#[derive(Debug)]
pub struct Workshop {
    dir: tempfile::TempDir,
}

impl Default for Workshop {
    fn default() -> Self {
        Self::new()
    }
}

impl Workshop {
    /// Makes roots, an intermediate CA, signers and revocation lists, in some two seconds.
    ///
    /// # Panics
    /// If `openssl` is not there or fails.
    pub fn new() -> Self {
        let this = Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
        };
        this.authority("root", None);
        this.authority("other-root", None);
        this.authority("middle", Some("root"));
        this.issue("root", "signer", "signer", Spec::default());
        this.issue("root", "rsa", "signer", Spec::of_key("rsa:2048"));
        this.issue("middle", "below", "signer", Spec::default());
        this.issue("other-root", "stranger", "signer", Spec::default());
        this.issue(
            "root",
            "expired",
            "signer",
            Spec {
                dates: ANCIENT,
                ..Spec::default()
            },
        );
        this.issue(
            "root",
            "early",
            "signer",
            Spec {
                dates: DISTANT,
                ..Spec::default()
            },
        );
        this.issue("root", "server", "server", Spec::default());
        this.issue("root", "revoked", "signer", Spec::default());
        this.issue("root", "weak", "signer", Spec::of_key("rsa:1024"));
        this.issue(
            "root",
            "sha1",
            "signer",
            Spec {
                md: "sha1",
                ..Spec::default()
            },
        );
        this.issue(
            "middle",
            "md5",
            "signer",
            Spec {
                md: "md5",
                ..Spec::of_key("rsa:2048")
            },
        );
        this.issue("root", "other-team", "signer", Spec::default());
        this.self_signed("selfsigned");
        let former = ["ca", "-config", "ca.cnf", "-gencrl", "-out", "crl-former.pem"];
        this.openssl("root", &former);
        this.openssl("root", &["ca", "-config", "ca.cnf", "-revoke", "../revoked.pem"]);
        for authority in ["root", "middle"] {
            this.openssl(
                authority,
                &["ca", "-config", "ca.cnf", "-gencrl", "-out", "crl.pem"],
            );
        }
        let rules = "roots = [\"root/ca.pem\"]\nrevocation-lists = [\"root/crl.pem\", \"middle/crl.pem\"]\n\
                     [[signers]]\nname = \"other-team\"\nmodules = [\"order-*\"]\n";
        let others = [
            "signer", "rsa", "below", "expired", "early", "server", "revoked", "weak", "sha1", "md5",
        ];
        let others: String = others
            .iter()
            .map(|name| format!("[[signers]]\nname = \"{name}\"\nmodules = [\"payment-*\"]\n"))
            .collect();
        fs::write(this.trust_file(), format!("{rules}{others}")).expect("the trust file");
        this
    }

    /// A trust file: the root, both lists, and `payment-*` for every signer but one.
    pub fn trust_file(&self) -> PathBuf {
        self.path("trust.toml")
    }

    /// A file in the workshop, e.g. `signer.pem`, `signer.key`, `middle/ca.pem`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Signs with `openssl cms -sign`.
    ///
    /// # Panics
    /// If that fails.
    pub fn sign(&self, content: &[u8], signer: &str, more: &[&str]) -> Vec<u8> {
        fs::write(self.path("content"), content).expect("the content");
        let (certificate, key) = (format!("{signer}.pem"), format!("{signer}.key"));
        let mut args = vec![
            "cms",
            "-sign",
            "-binary",
            "-outform",
            "DER",
            "-in",
            "content",
            "-out",
            "signature",
        ];
        args.extend(["-signer", &certificate, "-inkey", &key]);
        if !more.contains(&"-md") {
            args.extend(["-md", "sha256"]);
        }
        args.extend(more);
        self.openssl("", &args);
        fs::read(self.path("signature")).expect("the signature")
    }

    /// What `openssl cms -verify` says with the root, the lists, and its own level 2 for strength. Any purpose: it
    /// knows none for code signing before 3.2.
    ///
    /// # Panics
    /// If openssl can't be started.
    pub fn openssl_accepts(&self, content: &[u8], signature: &[u8]) -> bool {
        fs::write(self.path("content"), content).expect("the content");
        fs::write(self.path("signature"), signature).expect("the signature");
        let trusted = ["root/ca.pem", "root/crl.pem", "middle/crl.pem"];
        let trusted: String = trusted
            .iter()
            .map(|file| fs::read_to_string(self.path(file)).expect("a trusted file"))
            .collect();
        fs::write(self.path("trusted.pem"), trusted).expect("the trusted files");
        let mut command = Command::new("openssl");
        command.current_dir(self.dir.path()).args([
            "cms",
            "-verify",
            "-binary",
            "-inform",
            "DER",
            "-in",
            "signature",
            "-content",
            "content",
            "-CAfile",
            "trusted.pem",
            "-crl_check_all",
            "-purpose",
            "any",
            "-auth_level",
            "2",
            "-out",
            "/dev/null",
        ]);
        let output = command
            .output()
            .expect("openssl is installed (apt-get install openssl)");
        output.status.success()
    }

    /// The table of cases over these packages, made anew at each call.
    pub fn cases(&self, packages: &Packages) -> Vec<Case> {
        let content = &packages.signed;
        let with = |signer: &str, more: &[&str]| self.sign(content, signer, more);
        let good = with("signer", &[]);
        let mut cases = vec![
            case("good, ECDSA P-256", good.clone(), None, true),
            case("good, RSA-2048", with("rsa", &[]), None, true),
            case("good, by key identifier", with("signer", &["-keyid"]), None, true),
            case(
                "good, with an intermediate",
                with("below", &["-certfile", "middle/ca.pem"]),
                None,
                true,
            ),
            case(
                "good, the root sent along",
                with("signer", &["-certfile", "root/ca.pem"]),
                None,
                true,
            ),
        ];
        // Certificates come in any order.
        let more = ["middle/ca.pem", "root/ca.pem"]
            .map(|file| fs::read_to_string(self.path(file)).expect("it is there"));
        for (name, file, more) in [
            ("good, chain upwards", "upwards.pem", [&more[0], &more[1]]),
            ("good, chain downwards", "downwards.pem", [&more[1], &more[0]]),
        ] {
            fs::write(self.path(file), format!("{}{}", more[0], more[1])).expect("certificates");
            cases.push(case(name, with("below", &["-certfile", file]), None, true));
        }
        let tampered = |name, offered| Case {
            offered,
            ..case(name, good.clone(), Some(Check::Content), false)
        };
        cases.push(tampered("tampered artifact", Offered::OtherArtifact));
        cases.push(tampered("tampered manifest", Offered::OtherManifest));
        let mut altered = good.clone();
        *altered.last_mut().expect("a signature has bytes") ^= 1;
        cases.push(case("tampered signature", altered, Some(Check::Signature), false));
        for (name, signer, check, openssl) in [
            ("expired", "expired", Check::Expired, false),
            ("not yet valid", "early", Check::NotYetValid, false),
            // openssl is asked for any purpose.
            ("wrong extended key usage", "server", Check::Usage, true),
            (
                "unknown root, not sent along",
                "stranger",
                Check::IssuerMissing,
                false,
            ),
            ("self-signed", "selfsigned", Check::SelfSigned, false),
            ("missing intermediate", "below", Check::IssuerMissing, false),
            ("revoked", "revoked", Check::Revoked, false),
            ("RSA-1024", "weak", Check::WeakKey, false),
            (
                "certificate signed with SHA-1",
                "sha1",
                Check::CertificateAlgorithm,
                false,
            ),
        ] {
            cases.push(case(name, with(signer, &[]), Some(check), openssl));
        }
        let md5 = with("md5", &["-certfile", "middle/ca.pem"]);
        cases.push(case(
            "certificate signed with MD5",
            md5,
            Some(Check::CertificateAlgorithm),
            false,
        ));
        let stranger = with("stranger", &["-certfile", "other-root/ca.pem"]);
        cases.push(case("unknown root", stranger, Some(Check::UnknownRoot), false));
        // openssl takes digests of the signature by no level.
        for (name, md) in [
            ("digest SHA-1", "sha1"),
            ("digest MD5", "md5"),
            ("digest SHA-512", "sha512"),
        ] {
            let signature = with("rsa", &["-md", md]);
            let accepts = self.openssl_accepts(content, &signature);
            cases.push(case(name, signature, Some(Check::DigestAlgorithm), accepts));
        }
        cases.push(Case {
            offered: Offered::OtherModule,
            // Rules about modules are ours.
            ..case(
                "right signer, other module",
                self.sign(&packages.other_module, "signer", &[]),
                Some(Check::SignerNotAllowed),
                true,
            )
        });
        // openssl reads the first value, and takes what follows for the next one's.
        let trailing = [good.as_slice(), b"\0"].concat();
        cases.push(case("trailing byte", trailing, Some(Check::Encoding), true));
        // openssl looks at what it needs of a chain.
        cases.push(case(
            "chain of nine",
            self.long_chain(content),
            Some(Check::ChainLength),
            true,
        ));
        let unused = with("signer", &["-certfile", "middle/ca.pem"]);
        cases.push(case(
            "unused certificate",
            unused,
            Some(Check::UnusedCertificate),
            true,
        ));
        // It finds the signer's certificate nowhere.
        cases.push(case(
            "no certificates",
            with("signer", &["-nocerts"]),
            Some(Check::SignerMissing),
            false,
        ));
        cases.push(case(
            "no signed attributes",
            with("signer", &["-noattr"]),
            Some(Check::Form),
            true,
        ));
        cases.push(case(
            "not detached",
            with("signer", &["-nodetach"]),
            Some(Check::Form),
            true,
        ));
        let huge = vec![0x30; crate::envelope::SIGNATURE_BYTES_MAX + 1];
        cases.push(case(
            "64 KiB and one byte",
            huge,
            Some(Check::SignatureSize),
            false,
        ));
        cases.push(case(
            "no signature at all",
            b"hello".to_vec(),
            Some(Check::Encoding),
            false,
        ));
        cases
    }

    fn long_chain(&self, content: &[u8]) -> Vec<u8> {
        let mut more = String::new();
        for name in [
            "rsa", "below", "stranger", "expired", "early", "server", "revoked", "weak",
        ] {
            more += &fs::read_to_string(self.path(&format!("{name}.pem"))).expect("a certificate");
        }
        fs::write(self.path("more.pem"), more).expect("certificates");
        self.sign(content, "signer", &["-certfile", "more.pem"])
    }

    fn authority(&self, name: &str, issuer: Option<&str>) {
        let dir = self.path(name);
        fs::create_dir(&dir).expect("a folder");
        for (file, content) in [
            ("ca.cnf", CONFIG),
            ("index.txt", ""),
            ("serial", "1000\n"),
            ("crlnumber", "01\n"),
        ] {
            fs::write(dir.join(file), content).expect("a file of the authority");
        }
        match issuer {
            None => {
                self.key(&dir.join("ca.key"), &Spec::default());
                self.request(name, "ca.key", name);
                // Older than anything below it, also than what has expired.
                let args = [
                    "ca",
                    "-config",
                    "ca.cnf",
                    "-batch",
                    "-notext",
                    "-selfsign",
                    "-keyfile",
                    "ca.key",
                ];
                let more = ["-in", "request.pem", "-out", "ca.pem", "-extensions", "root"];
                let dates = ["-startdate", ROOTS.0, "-enddate", ROOTS.1];
                self.openssl(name, &[&args[..], &more[..], &dates[..]].concat());
            }
            Some(issuer) => {
                // RSA, because ECDSA with MD5 was never defined.
                self.issue(issuer, name, "intermediate", Spec::of_key("rsa:2048"));
                fs::copy(self.path(&format!("{name}.pem")), dir.join("ca.pem")).expect("a copy");
                fs::copy(self.path(&format!("{name}.key")), dir.join("ca.key")).expect("a copy");
            }
        }
    }

    fn key(&self, path: &Path, spec: &Spec<'_>) {
        let path = path.to_str().expect("a plain path");
        let args: &[&str] = match spec.key {
            "rsa:2048" => &[
                "genpkey",
                "-algorithm",
                "RSA",
                "-pkeyopt",
                "rsa_keygen_bits:2048",
                "-out",
                path,
            ],
            "rsa:1024" => &[
                "genpkey",
                "-algorithm",
                "RSA",
                "-pkeyopt",
                "rsa_keygen_bits:1024",
                "-out",
                path,
            ],
            _ => &[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-out",
                path,
            ],
        };
        self.openssl("", args);
    }

    /// A request for a certificate, as `request.pem` in the authority's folder.
    fn request(&self, authority: &str, key: &str, name: &str) {
        let subject = format!("/CN={name}");
        let args = ["req", "-new", "-config", "ca.cnf", "-key", key, "-subj", &subject];
        self.openssl(authority, &[&args[..], &["-out", "request.pem"]].concat());
    }

    fn issue(&self, issuer: &str, name: &str, profile: &str, spec: Spec<'_>) {
        self.key(&self.path(&format!("{name}.key")), &spec);
        self.request(issuer, &format!("../{name}.key"), name);
        let out = format!("../{name}.pem");
        let args = [
            "ca",
            "-config",
            "ca.cnf",
            "-batch",
            "-notext",
            "-in",
            "request.pem",
            "-out",
            &out,
        ];
        let more = [
            "-extensions",
            profile,
            "-md",
            spec.md,
            "-startdate",
            spec.dates.0,
            "-enddate",
            spec.dates.1,
        ];
        self.openssl(issuer, &[&args[..], &more[..]].concat());
    }

    fn self_signed(&self, name: &str) {
        let (key, out, subject) = (
            format!("{name}.key"),
            format!("{name}.pem"),
            format!("/CN={name}"),
        );
        self.key(&self.path(&key), &Spec::default());
        let args = [
            "req",
            "-x509",
            "-new",
            "-key",
            &key,
            "-config",
            "root/ca.cnf",
            "-subj",
            &subject,
        ];
        let more = ["-extensions", "selfsigned", "-days", "5000", "-out", &out];
        self.openssl("", &[&args[..], &more[..]].concat());
    }

    fn openssl(&self, folder: &str, args: &[&str]) {
        let output = Command::new("openssl")
            .current_dir(self.dir.path().join(folder))
            .args(args)
            .output()
            .expect("openssl is installed (apt-get install openssl)");
        assert!(
            output.status.success(),
            "openssl {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[derive(Clone, Copy)]
struct Spec<'a> {
    key: &'a str,
    md: &'a str,
    dates: (&'a str, &'a str),
}

impl Default for Spec<'_> {
    fn default() -> Self {
        Self {
            key: "ec",
            md: "sha256",
            dates: PRESENT,
        }
    }
}

impl<'a> Spec<'a> {
    fn of_key(key: &'a str) -> Self {
        Self {
            key,
            ..Self::default()
        }
    }
}

fn case(name: &'static str, signature: Vec<u8>, refused_by: Option<Check>, openssl_accepts: bool) -> Case {
    Case {
        name,
        signature,
        offered: Offered::Signed,
        refused_by,
        openssl_accepts,
    }
}
