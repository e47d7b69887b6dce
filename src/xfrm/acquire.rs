//! The kernel wants an SA (`pfkey_send_acquire`).
#![forbid(unsafe_code)]

use super::XfrmEngine;
use super::algorithm::{Algorithm, Kind};
use super::attribute::Received;
use super::layout::UserAcquire;
use super::value::label;
use crate::afkey::message::write_host;
use crate::afkey::sa::Context as SecurityContext;
use crate::keyd::{Audience, Context};
use crate::wire::layout::{SadbComb, SadbXPolicy};
use crate::wire::{ExtensionType as Ext, Header, MessageType, PolicyDirection, PolicyType, SaType};

impl XfrmEngine {
    /// Tells registered key managers.
    pub(super) fn sa_wanted(&mut self, event: &Received<'_>, cx: &mut Context<'_>) -> Option<()> {
        let (acquire, attributes) = event.fixed::<UserAcquire>()?;
        let (ends, proto, ours) = Self::larval_name(&acquire, attributes)?;
        let satype = SaType::from_protocol(proto);
        let header = Header::new(MessageType::ACQUIRE, satype, acquire.seq.get(), 0);
        let ext = SadbXPolicy {
            policy_type: PolicyType::IPSEC.0.into(),
            dir: PolicyDirection::OUTBOUND.0,
            id: acquire.policy.index,
            priority: acquire.policy.priority,
            ..Default::default()
        };
        // AF_KEY leaves the masks of its policies empty, so that it proposes nothing for them.
        let combinations =
            if ours { Vec::new() } else { self.combinations(satype, acquire.aalgos.get(), acquire.ealgos.get()) };
        cx.send(Audience::Registered, header, |writer| {
            write_host(writer, Ext::ADDRESS_SRC, ends.src());
            write_host(writer, Ext::ADDRESS_DST, ends.dst());
            writer.policy(ext, &[]);
            if matches!(satype, SaType::AH | SaType::ESP) {
                writer.proposal(32, &combinations);
            }
            if let Some(text) = label(attributes) {
                writer.sec_ctx(SecurityContext::DOI, SecurityContext::ALG, text);
            }
        })
        .ok()
    }

    /// What the masks of a template allow (`dump_ah_combs`, `dump_esp_combs`): ids below 32 only.
    fn combinations(&self, satype: SaType, aalgos: u32, ealgos: u32) -> Vec<SadbComb> {
        let allowed = |mask: u32, algorithm: &&Algorithm| algorithm.id < 32 && mask & (1 << algorithm.id) != 0;
        let auth: Vec<_> = self.known(Kind::Auth).filter(|a| allowed(aalgos, a)).collect();
        let one = |auth: &Algorithm, encrypt: Option<&Algorithm>| {
            let ((auth_min, auth_max), (min, max)) = (auth.bits(), encrypt.map_or((0, 0), Algorithm::bits));
            SadbComb {
                auth: auth.id,
                encrypt: encrypt.map_or(0, |e| e.id),
                auth_minbits: auth_min.into(),
                auth_maxbits: auth_max.into(),
                encrypt_minbits: min.into(),
                encrypt_maxbits: max.into(),
                soft_addtime: 72_000.into(),
                hard_addtime: 86_400.into(),
                soft_usetime: 25_200.into(),
                hard_usetime: 28_800.into(),
                ..Default::default()
            }
        };
        if satype == SaType::AH {
            return auth.iter().map(|auth| one(auth, None)).collect();
        }
        self.known(Kind::Encrypt)
            .filter(|e| allowed(ealgos, e))
            .flat_map(|encrypt| auth.iter().map(move |auth| one(auth, Some(encrypt))))
            .collect()
    }
}
