//! Algorithms by the names that people use.

use std::fmt;

use crate::wire::algorithm::{AEAD, AUTH, Algorithm, COMPRESS, ENCRYPT, by_id};
use crate::wire::{AuthAlgorithm, CompressionAlgorithm, EncryptAlgorithm};

/// An enum with the numbers that PF_KEY has for its variants.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident: $number:ident in $($table:ident),+; $($(#[$vdoc:meta])* $variant:ident = $constant:ident),* $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// Its number in PF_KEY.
            #[must_use]
            pub const fn number(self) -> $number {
                match self {
                    $(Self::$variant => $number::$constant,)*
                }
            }

            /// The one with this number.
            #[must_use]
            pub const fn from_number(number: $number) -> Option<Self> {
                match number {
                    $($number::$constant => Some(Self::$variant),)*
                    _ => None,
                }
            }

            pub(crate) fn row(self) -> Option<&'static Algorithm> {
                [$($table),+].into_iter().find_map(|table| by_id(table, self.number().0))
            }
        }

        impl fmt::Display for $name {
            /// setkey's name.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.row().and_then(|row| row.names.first()).unwrap_or(&"?"))
            }
        }
    };
}

named! {
    /// What encrypts an ESP SA. An AEAD's key has its salt behind it, as RFC 4106, RFC 4309 and RFC 7634 say of keying
    /// material, and is offered only where it was asked for: see `PFKEY_ALGORITHMS`.
    Cipher: EncryptAlgorithm in ENCRYPT, AEAD;
    /// None (RFC 2410).
    Null = NULL,
    /// DES-CBC.
    DesCbc = DESCBC,
    /// 3DES-CBC.
    TripleDesCbc = A3DESCBC,
    /// CAST128-CBC.
    CastCbc = X_CASTCBC,
    /// Blowfish-CBC.
    BlowfishCbc = X_BLOWFISHCBC,
    /// AES-CBC.
    AesCbc = X_AESCBC,
    /// Serpent-CBC.
    SerpentCbc = X_SERPENTCBC,
    /// Camellia-CBC.
    CamelliaCbc = X_CAMELLIACBC,
    /// Twofish-CBC.
    TwofishCbc = X_TWOFISHCBC,
    /// SM4-CBC.
    Sm4Cbc = X_SM4CBC,
    /// AES-CTR, its nonce behind the key (RFC 3686).
    AesCtr = X_AESCTR,
    /// AES-CCM with an integrity value of 8 bytes.
    AesCcm8 = X_AES_CCM_ICV8,
    /// AES-CCM with an integrity value of 12 bytes.
    AesCcm12 = X_AES_CCM_ICV12,
    /// AES-CCM with an integrity value of 16 bytes.
    AesCcm16 = X_AES_CCM_ICV16,
    /// AES-GCM with an integrity value of 8 bytes.
    AesGcm8 = X_AES_GCM_ICV8,
    /// AES-GCM with an integrity value of 12 bytes.
    AesGcm12 = X_AES_GCM_ICV12,
    /// AES-GCM with an integrity value of 16 bytes.
    AesGcm16 = X_AES_GCM_ICV16,
    /// AES-GMAC, which encrypts nothing (RFC 4543).
    AesGmac = X_NULL_AES_GMAC,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305 = X_CHACHA20_POLY1305,
}

impl Cipher {
    /// Whether it authenticates too.
    #[must_use]
    pub fn is_aead(self) -> bool {
        by_id(AEAD, self.number().0).is_some()
    }
}

named! {
    /// What authenticates an AH or ESP SA.
    Hmac: AuthAlgorithm in AUTH;
    /// Nothing, said explicitly.
    Null = X_NULL,
    /// HMAC-MD5-96.
    Md5 = MD5HMAC,
    /// HMAC-SHA1-96.
    Sha1 = SHA1HMAC,
    /// HMAC-SHA2-256; Linux's integrity value through PF_KEY has 96 bits, not RFC 4868's 128: see `PFKEY_ALGORITHMS`.
    Sha256 = X_SHA2_256HMAC,
    /// HMAC-SHA2-384-192.
    Sha384 = X_SHA2_384HMAC,
    /// HMAC-SHA2-512-256.
    Sha512 = X_SHA2_512HMAC,
    /// HMAC-RIPEMD-160-96.
    Ripemd160 = X_RIPEMD160HMAC,
    /// AES-XCBC-MAC-96, which is no HMAC.
    AesXcbc = X_AES_XCBC_MAC,
    /// HMAC-SM3.
    Sm3 = X_SM3_256HMAC,
}

named! {
    /// What compresses in an IPComp SA.
    Compression: CompressionAlgorithm in COMPRESS;
    /// RFC 2394.
    Deflate = DEFLATE,
    /// RFC 2395.
    Lzs = LZS,
    /// RFC 3051.
    Lzjh = LZJH,
}
