//! The algorithms that PF_KEY can name, one row each: its number, the kernel's name and REGISTER's figures
//! (`net/xfrm/xfrm_algo.c`), what it does to a packet, and what people call it. Everything else that knows algorithms is a
//! filter of these tables.

use super::layout::SadbAlg;
use super::number::numbers;

/// Lengths of key in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// These.
    OneOf(&'static [u16]),
    /// From, to, in steps of 8.
    Range(u16, u16),
}

impl Keys {
    /// Whether a key of this length is one.
    #[must_use]
    pub fn contains(self, bits: usize) -> bool {
        match self {
            Self::OneOf(lengths) => lengths.iter().any(|n| usize::from(*n) == bits),
            Self::Range(min, max) => (usize::from(min)..=usize::from(max)).contains(&bits),
        }
    }

    /// The shortest and the longest.
    const fn ends(self) -> (u16, u16) {
        match self {
            Self::OneOf(&[first, .., last]) => (first, last),
            Self::OneOf(&[only]) => (only, only),
            Self::OneOf(&[]) => (0, 0),
            Self::Range(min, max) => (min, max),
        }
    }
}

impl core::fmt::Display for Keys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OneOf(lengths) => {
                for (n, length) in lengths.iter().enumerate() {
                    write!(f, "{}{length}", if n == 0 { "" } else { " or " })?;
                }
                f.write_str(" bits")
            }
            Self::Range(min, max) => write!(f, "{min} to {max} bits"),
        }
    }
}

/// An algorithm.
#[derive(Clone, Copy, Debug)]
pub struct Algorithm {
    /// `sadb_alg_id`.
    pub id: u8,
    /// The kernel's name; empty if no kernel has it.
    pub kernel: &'static str,
    /// setkey's names, the one that is shown first.
    pub names: &'static [&'static str],
    /// libipsec's name, as `setkey -D` shows it, if it has one.
    pub libipsec: Option<&'static str>,
    /// Lengths of key that interoperate. An AEAD's key has its salt behind it, as RFC 4106, RFC 4309 and RFC 7634 say of
    /// keying material and XFRM wants it; lengths count the salt.
    pub keys: Keys,
    /// Bytes of the initialisation vector.
    pub iv: u8,
    /// Bytes of a block.
    pub block: u8,
    /// Bytes of its integrity check value in AF_KEY.
    pub icv: u8,
    /// The initialisation vector that REGISTER lists.
    listed_iv: u8,
    /// The shortest and the longest key that REGISTER lists.
    listed_keys: (u16, u16),
    /// The embedded engine has it, as Debian's Linux 7.2 does.
    pub embedded: bool,
}

/// An algorithm of a table.
#[must_use]
pub fn by_id(table: &'static [Algorithm], id: u8) -> Option<&'static Algorithm> {
    table.iter().find(|algorithm| algorithm.id == id)
}

impl Algorithm {
    /// As REGISTER lists it.
    #[must_use]
    pub fn listed(&self) -> SadbAlg {
        let (min, max) = self.listed_keys;
        SadbAlg { id: self.id, ivlen: self.listed_iv, minbits: min.into(), maxbits: max.into(), ..Default::default() }
    }

    /// The shortest and the longest key in bits that REGISTER lists.
    #[must_use]
    pub const fn listed_keys(&self) -> (u16, u16) {
        self.listed_keys
    }

    /// Whether the kernel takes a key of this many bytes: HMACs hash or pad any (RFC 2104), as `digest_null` does.
    #[must_use]
    pub fn accepts_key(&self, len: usize) -> bool {
        self.kernel.starts_with("hmac(") || self.kernel == "digest_null" || self.keys.contains(len * 8)
    }
}

/// Tables of algorithms, and the numbers that name them.
macro_rules! algorithms {
    (
        $(#[$doc:meta])* $number:ident; $(#[$none:meta])* NONE;
        $($(#[$tdoc:meta])* $table:ident [$(
            $(#[$rdoc:meta])* $name:ident = $id:tt, $header:tt: $row:expr;
        )*])*
    ) => {
        numbers! {
            $(#[$doc])*
            $number(u8) {
                $(#[$none])* NONE = 0, "NONE";
                $($($(#[$rdoc])* $name = $id, $header;)*)*
            }
        }
        $(
            $(#[$tdoc])*
            pub const $table: &[Algorithm] = &[$(Algorithm { id: $id, ..$row }),*];
        )*
    };
}

/// No key at all.
const NO_KEY: Keys = Keys::OneOf(&[0]);
/// AES and its like.
const AES: Keys = Keys::OneOf(&[128, 192, 256]);
/// AES with a salt of 32 bits behind the key (RFC 3686, RFC 4106, RFC 4543).
const AES_SALT_32: Keys = Keys::OneOf(&[160, 224, 288]);
/// AES with a salt of 24 bits behind the key (RFC 4309).
const AES_SALT_24: Keys = Keys::OneOf(&[152, 216, 280]);

const fn row(kernel: &'static str, names: &'static [&'static str], keys: Keys) -> Algorithm {
    Algorithm {
        id: 0,
        kernel,
        names,
        libipsec: Some(names[0]),
        keys,
        iv: 0,
        block: 1,
        icv: 0,
        listed_iv: 0,
        listed_keys: keys.ends(),
        embedded: true,
    }
}

/// An authentication algorithm, its integrity value in bytes and its only key.
const fn auth(kernel: &'static str, names: &'static [&'static str], icv: u8, keys: &'static [u16]) -> Algorithm {
    Algorithm { icv, ..row(kernel, names, Keys::OneOf(keys)) }
}

/// A cipher in CBC mode. REGISTER lists half the initialisation vector of those with blocks of 16 bytes.
const fn cbc(kernel: &'static str, names: &'static [&'static str], block: u8, keys: Keys) -> Algorithm {
    Algorithm { iv: block, block, listed_iv: 8, ..row(kernel, names, keys) }
}

/// A cipher that authenticates too, its integrity value in bytes.
const fn aead(kernel: &'static str, names: &'static [&'static str], icv: u8, keys: Keys) -> Algorithm {
    Algorithm { iv: 8, icv, listed_iv: 8, libipsec: None, ..row(kernel, names, keys) }
}

algorithms! {
    /// `sadb_sa_auth` and `sadb_alg_id` of authentication algorithms.
    AuthAlgorithm;
    /// No authentication.
    NONE;
    /// Authentication, in the order of REGISTER's answer. RIPEMD-160 went away between 6.12 and 7.2.
    AUTH [
        /// No authentication, said explicitly.
        X_NULL = 251, "X_NULL": auth("digest_null", &["null"], 0, &[0]);
        /// HMAC-MD5.
        MD5HMAC = 2, "MD5HMAC": auth("hmac(md5)", &["hmac-md5"], 12, &[128]);
        /// HMAC-SHA1.
        SHA1HMAC = 3, "SHA1HMAC": auth("hmac(sha1)", &["hmac-sha1"], 12, &[160]);
        /// HMAC-SHA2-256.
        X_SHA2_256HMAC = 5, "X_SHA2_256HMAC": auth(
            "hmac(sha256)",
            &["hmac-sha256", "hmac-sha2-256", "hmac-sha2-256-128", "hmac-sha2-256-96"],
            12,
            &[256],
        );
        /// HMAC-SHA2-384.
        X_SHA2_384HMAC = 6, "X_SHA2_384HMAC": auth("hmac(sha384)", &["hmac-sha384", "hmac-sha2-384"], 24, &[384]);
        /// HMAC-SHA2-512.
        X_SHA2_512HMAC = 7, "X_SHA2_512HMAC": auth("hmac(sha512)", &["hmac-sha512", "hmac-sha2-512"], 32, &[512]);
        /// HMAC-RIPEMD160.
        X_RIPEMD160HMAC = 8, "X_RIPEMD160HMAC":
            Algorithm { embedded: false, ..auth("hmac(rmd160)", &["hmac-ripemd160"], 12, &[160]) };
        /// AES-XCBC-MAC.
        X_AES_XCBC_MAC = 9, "X_AES_XCBC_MAC": auth("xcbc(aes)", &["aes-xcbc-mac"], 12, &[128]);
        /// HMAC-SM3.
        X_SM3_256HMAC = 10, "X_SM3_256HMAC":
            Algorithm { embedded: false, libipsec: None, ..auth("hmac(sm3)", &["hmac-sm3"], 32, &[256]) };
    ]
}

algorithms! {
    /// `sadb_sa_encrypt` and `sadb_alg_id` of encryption algorithms.
    EncryptAlgorithm;
    /// No encryption.
    NONE;
    /// Encryption, in the order of REGISTER's answer.
    ENCRYPT [
        /// The null cipher (RFC 2410).
        NULL = 11, "NULL": row("ecb(cipher_null)", &["null", "simple"], NO_KEY);
        /// DES-CBC.
        DESCBC = 2, "DESCBC": cbc("cbc(des)", &["des-cbc", "des-deriv", "des-32iv"], 8, Keys::OneOf(&[64]));
        /// 3DES-CBC.
        A3DESCBC = 3, "3DESCBC": cbc("cbc(des3_ede)", &["3des-cbc"], 8, Keys::OneOf(&[192]));
        /// CAST128-CBC.
        X_CASTCBC = 6, "X_CASTCBC": cbc("cbc(cast5)", &["cast128-cbc"], 8, Keys::Range(40, 128));
        /// Blowfish-CBC.
        X_BLOWFISHCBC = 7, "X_BLOWFISHCBC":
            Algorithm { listed_keys: (40, 448), ..cbc("cbc(blowfish)", &["blowfish-cbc"], 8, Keys::Range(32, 448)) };
        /// AES-CBC.
        X_AESCBC = 12, "X_AESCBC": cbc("cbc(aes)", &["aes-cbc", "rijndael-cbc"], 16, AES);
        /// Serpent-CBC.
        X_SERPENTCBC = 252, "X_SERPENTCBC": Algorithm {
            listed_keys: (128, 256),
            libipsec: None,
            ..cbc("cbc(serpent)", &["serpent-cbc"], 16, Keys::Range(0, 256))
        };
        /// Camellia-CBC.
        X_CAMELLIACBC = 22, "X_CAMELLIACBC": cbc("cbc(camellia)", &["camellia-cbc"], 16, AES);
        /// Twofish-CBC.
        X_TWOFISHCBC = 253, "X_TWOFISHCBC": cbc("cbc(twofish)", &["twofish-cbc"], 16, AES);
        /// AES-CTR.
        X_AESCTR = 13, "X_AESCTR":
            Algorithm { iv: 8, listed_iv: 8, ..row("rfc3686(ctr(aes))", &["aes-ctr"], AES_SALT_32) };
        /// SM4-CBC.
        X_SM4CBC = 24, "X_SM4CBC": Algorithm {
            listed_iv: 16,
            listed_keys: (128, 256),
            libipsec: None,
            embedded: false,
            ..cbc("cbc(sm4)", &["sm4-cbc"], 16, Keys::OneOf(&[128]))
        };
    ]
    /// Encryption that authenticates too (AEAD), in the order of REGISTER's answer: an engine has these if it was asked for
    /// them ([`super::Extras::aead`]).
    AEAD [
        /// AES-CCM, 64-bit ICV.
        X_AES_CCM_ICV8 = 14, "X_AES_CCM_ICV8": aead("rfc4309(ccm(aes))", &["aes-ccm-8"], 8, AES_SALT_24);
        /// AES-CCM, 96-bit ICV.
        X_AES_CCM_ICV12 = 15, "X_AES_CCM_ICV12": aead("rfc4309(ccm(aes))", &["aes-ccm-12"], 12, AES_SALT_24);
        /// AES-CCM, 128-bit ICV.
        X_AES_CCM_ICV16 = 16, "X_AES_CCM_ICV16": aead("rfc4309(ccm(aes))", &["aes-ccm-16"], 16, AES_SALT_24);
        /// AES-GCM, 64-bit ICV.
        X_AES_GCM_ICV8 = 18, "X_AES_GCM_ICV8": aead("rfc4106(gcm(aes))", &["aes-gcm-8"], 8, AES_SALT_32);
        /// AES-GCM, 96-bit ICV.
        X_AES_GCM_ICV12 = 19, "X_AES_GCM_ICV12": aead("rfc4106(gcm(aes))", &["aes-gcm-12"], 12, AES_SALT_32);
        /// AES-GCM, 128-bit ICV.
        X_AES_GCM_ICV16 = 20, "X_AES_GCM_ICV16": aead("rfc4106(gcm(aes))", &["aes-gcm-16"], 16, AES_SALT_32);
        /// AES-GMAC (RFC 4543).
        X_NULL_AES_GMAC = 23, "X_NULL_AES_GMAC": aead("rfc4543(gcm(aes))", &["aes-gmac"], 16, AES_SALT_32);
        /// ChaCha20-Poly1305 (RFC 7634). Linux has no number for it; this is IKEv2's (IANA), as its others are IKE's.
        X_CHACHA20_POLY1305 = 28, "X_CHACHA20_POLY1305":
            aead("rfc7539esp(chacha20,poly1305)", &["chacha20-poly1305"], 16, Keys::OneOf(&[288]));
    ]
}

algorithms! {
    /// `sadb_sa_encrypt` of an IPComp SA.
    CompressionAlgorithm;
    /// None.
    NONE;
    /// Compression that no kernel has.
    OTHER_COMPRESS [
        /// Proprietary.
        OUI = 1, "OUI": Algorithm { embedded: false, ..row("", &["oui"], NO_KEY) };
    ]
    /// Compression.
    COMPRESS [
        /// RFC 2394.
        DEFLATE = 2, "DEFLATE": row("deflate", &["deflate"], NO_KEY);
        /// RFC 2395.
        LZS = 3, "LZS": Algorithm { embedded: false, ..row("lzs", &["lzs"], NO_KEY) };
        /// RFC 3051.
        LZJH = 4, "LZJH": Algorithm { embedded: false, libipsec: None, ..row("lzjh", &["lzjh"], NO_KEY) };
    ]
}

/// KAME's authentication algorithms without HMAC. No Linux knows their numbers, which have no names in its headers.
pub const KAME_AUTH: &[Algorithm] = &[
    Algorithm { id: 249, libipsec: Some("md5"), embedded: false, ..auth("", &["keyed-md5"], 0, &[128]) },
    Algorithm { id: 250, libipsec: Some("sha"), embedded: false, ..auth("", &["keyed-sha1"], 0, &[160]) },
];
