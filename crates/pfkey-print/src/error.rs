//! libipsec's error codes, the one vocabulary that every C caller of this library knows.
//!
//! Each module has its own error type; those that surface through the C ABI convert into a [`Code`].

use std::ffi::CStr;

use pfkey::policy_text::{DumpError, PolicyError, PolicyErrorKind, PolicySpec, TooLong};

use crate::align::AlignError;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// `__ipsec_errcode`: the values of libipsec's `ipsec_strerror.h`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Code { $($(#[$doc])* $name = $value,)* }

        impl Code {
            /// The text that `ipsec_strerror` gives; for [`Code::SystemError`] only where no text of the
            /// system was kept.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The same as C has it.
            #[must_use]
            pub const fn c_text(self) -> &'static CStr {
                match self {
                    $(Self::$name => const {
                        match CStr::from_bytes_with_nul(concat!($text, "\0").as_bytes()) {
                            Ok(text) => text,
                            Err(_) => panic!("a text with a NUL"),
                        }
                    })*
                }
            }

            /// The code of a number; [`Code::Max`] ("Unknown error") for any other number.
            #[must_use]
            pub const fn from_number(number: i32) -> Self {
                match number { $($value => Self::$name,)* _ => Self::Max }
            }
        }
    };
}

codes! {
    /// The call succeeded.
    NoError = 0, "Success";
    /// Algorithm not registered, or an SA type that libipsec refuses to handle.
    NotSupported = 1, "Not supported";
    /// A NULL pointer, or a value that cannot be.
    InvalidArgument = 2, "Invalid argument";
    /// Extensions do not add up to the message.
    InvalidMessage = 3, "Invalid sadb message";
    /// Not `PF_KEY_V2`.
    InvalidVersion = 4, "Invalid version";
    /// Policy type.
    InvalidPolicy = 5, "Invalid security policy";
    /// Address.
    InvalidAddress = 6, "Invalid address specification";
    /// IPsec protocol of a request.
    InvalidProto = 7, "Invalid ipsec protocol";
    /// Mode of a request.
    InvalidMode = 8, "Invalid ipsec mode";
    /// Level of a request.
    InvalidLevel = 9, "Invalid ipsec level";
    /// SA type.
    InvalidSaType = 10, "Invalid SA type";
    /// Message type.
    InvalidMessageType = 11, "Invalid message type";
    /// Extension type, or the same extension twice.
    InvalidExtensionType = 12, "Invalid extension type";
    /// Algorithm does not go with the SA type.
    InvalidAlgorithm = 13, "Invalid algorithm type";
    /// Key length.
    InvalidKeyLength = 14, "Invalid key length";
    /// Address family.
    InvalidFamily = 15, "Invalid address family";
    /// Prefix length.
    InvalidPrefixLength = 16, "Invalid prefix length";
    /// Policy direction.
    InvalidDirection = 17, "Invalid direction";
    /// SPI range.
    InvalidSpi = 18, "SPI range violation";
    /// No protocol.
    NoProto = 19, "No protocol specified";
    /// No algorithm.
    NoAlgorithm = 20, "No algorithm specified";
    /// Out of memory.
    NoBuffers = 21, "No buffers available";
    /// `pfkey_recv_register` comes first.
    DoGetSupportedList = 22, "Must get supported algorithms list first";
    /// The two addresses' protocols differ.
    ProtocolMismatch = 23, "Protocol mismatch";
    /// The two addresses' families differ.
    FamilyMismatch = 24, "Family mismatch";
    /// A policy request breaks off.
    FewArguments = 25, "Too few arguments";
    /// A system call failed; the text is the system's.
    SystemError = 26, "System error";
    /// Policy priority.
    InvalidPriorityOffset = 27, "Priority offset not in valid range [-2147483647, 2147483648]";
    /// Policy priority relative to a base.
    InvalidPriorityBaseOffset = 28,
        "Priority offset from base not in valid range [0, 1073741823] for negative offsets and [0, 1073741824] for positive offsets";
    /// Never on Linux.
    PriorityNotCompiled = 29, "Policy priority not compiled in";
    /// Anything else.
    Max = 30, "Unknown error";
}

impl From<PolicyError> for Code {
    /// The code with which `ipsec_set_policy` fails; [`Code::after_policy`] says when it is not set.
    fn from(error: PolicyError) -> Self {
        match error.kind {
            PolicyErrorKind::Syntax { .. } => Self::InvalidArgument,
            PolicyErrorKind::FewArguments { .. } => Self::FewArguments,
            PolicyErrorKind::PriorityOffset => Self::InvalidPriorityOffset,
            PolicyErrorKind::PriorityBaseOffset => Self::InvalidPriorityBaseOffset,
            PolicyErrorKind::Direction => Self::InvalidDirection,
            PolicyErrorKind::TunnelWithoutAddresses => Self::InvalidAddress,
            PolicyErrorKind::FamilyMismatch => Self::FamilyMismatch,
            PolicyErrorKind::Address(_) => Self::SystemError,
            PolicyErrorKind::TooLong | PolicyErrorKind::NoMemory => Self::NoBuffers,
        }
    }
}

impl From<DumpError> for Code {
    fn from(error: DumpError) -> Self {
        match error {
            DumpError::Message => Self::InvalidMessage,
            DumpError::ExtensionType => Self::InvalidExtensionType,
            DumpError::Direction => Self::InvalidDirection,
            DumpError::Policy => Self::InvalidPolicy,
            DumpError::Proto => Self::InvalidProto,
            DumpError::Mode => Self::InvalidMode,
            DumpError::Address => Self::InvalidAddress,
            DumpError::Level => Self::InvalidLevel,
        }
    }
}

impl From<TooLong> for Code {
    fn from(_: TooLong) -> Self {
        Self::NoBuffers
    }
}

impl Code {
    /// The code after `ipsec_set_policy`, from the one before it: where the text set none, that one stays, unless it was
    /// [`Code::NoError`], which becomes [`Code::InvalidArgument`].
    #[must_use]
    pub fn after_policy(result: &Result<PolicySpec, PolicyError>, is_set: bool, before: Self) -> Self {
        match result {
            Ok(_) => Self::NoError,
            Err(error) if is_set => (*error).into(),
            Err(_) if before == Self::NoError => Self::InvalidArgument,
            Err(_) => before,
        }
    }
}

impl From<AlignError> for Code {
    fn from(error: AlignError) -> Self {
        match error {
            AlignError::NotSupported => Self::NotSupported,
            AlignError::InvalidMessage => Self::InvalidMessage,
            AlignError::InvalidVersion => Self::InvalidVersion,
            AlignError::InvalidMessageType => Self::InvalidMessageType,
            AlignError::InvalidSaType => Self::InvalidSaType,
            AlignError::InvalidExtensionType => Self::InvalidExtensionType,
            AlignError::ProtocolMismatch => Self::ProtocolMismatch,
            AlignError::FamilyMismatch => Self::FamilyMismatch,
            AlignError::InvalidFamily => Self::InvalidFamily,
        }
    }
}

#[cfg(test)]
mod tests {
    use pfkey::policy_text::parse;

    use super::Code;

    #[test]
    fn numbers_outside_the_table_are_unknown() {
        assert_eq!(Code::from_number(-1), Code::Max);
        assert_eq!(Code::from_number(31), Code::Max);
        assert_eq!(Code::from_number(26), Code::SystemError);
    }

    #[test]
    fn c_has_the_same_texts() {
        for code in (0..=30).map(Code::from_number) {
            assert_eq!(code.c_text().to_str(), Ok(code.text()));
        }
    }

    #[test]
    fn a_stale_code_stays_until_a_policy_has_its_header() {
        let after = |text: &[u8], before: Code| {
            let outcome = parse(text);
            Code::after_policy(&outcome.result, outcome.sets_code, before)
        };
        assert_eq!(after(b"bogus", Code::InvalidSpi), Code::InvalidSpi);
        assert_eq!(after(b"bogus", Code::NoError), Code::InvalidArgument);
        assert_eq!(after(b"in bogus", Code::InvalidSpi), Code::InvalidArgument);
        assert_eq!(after(b"in none", Code::InvalidSpi), Code::NoError);
    }
}
