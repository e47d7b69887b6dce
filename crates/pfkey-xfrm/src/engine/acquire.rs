//! The kernel wants an SA (`pfkey_send_acquire`).
#![forbid(unsafe_code)]

use super::XfrmEngine;
use super::sa_request::MAX_CPI;
use super::shadow::Larval;
use crate::algorithm::Kind;
use crate::attached;
use crate::attached::write_xfrm;
use crate::attribute::{ACK, Attributes, REQUEST, Received};
use crate::layout::{UserAcquire, UserspiInfo, message};
use crate::policy::{SHARE_TAG, templates};
use crate::sa::usersa_info;
use crate::value::ends_from_xfrm;
use pfkey_hub::{Audience, Context, Errno};
use pfkey_model::attached::Attached;
use pfkey_model::message::write_host;
use pfkey_model::sa::Sa;
use pfkey_model::xfrm::XfrmView;
use pfkey_wire::algorithm::Algorithm;
use pfkey_wire::layout::{SadbComb, SadbXPolicy};
use pfkey_wire::{Ends, ExtensionType as Ext, Header, IpsecProtocol, MessageType, PolicyDirection, PolicyType, SaType};

/// SPIs that af_key chooses from.
const SPIS: (u32, u32) = (0x100, 0x0fff_ffff);

/// An SA that the kernel wants.
#[derive(Debug)]
pub struct Acquire {
    /// Between whom; their family is that of the template that asks.
    pub(super) ends: Ends,
    pub(super) proto: IpsecProtocol,
    /// The number by which the SA has to answer.
    seq: u32,
    /// The policy that asks.
    policy: u32,
    priority: u32,
    /// The masks of algorithms that may be proposed, for authentication and encryption: ids below 32 only.
    allowed: Option<(u32, u32)>,
    attached: Attached,
}

impl Acquire {
    /// Decodes an `XFRM_MSG_ACQUIRE`.
    pub(super) fn decode(received: &Received<'_>) -> Option<Self> {
        let (acquire, attributes) = received.fixed::<UserAcquire>()?;
        let (ends, ours) = larval_ends(acquire, attributes)?;
        Some(Self {
            ends,
            proto: IpsecProtocol(acquire.id.proto),
            seq: acquire.seq.get(),
            policy: acquire.policy.index.get(),
            priority: acquire.policy.priority.get(),
            // AF_KEY leaves the masks of its policies empty, so that it proposes nothing for them.
            allowed: (!ours).then(|| (acquire.aalgos.get(), acquire.ealgos.get())),
            attached: Attached::from(&attached::view(XfrmView { attributes, ..XfrmView::default() })),
        })
    }
}

/// The ends of an ACQUIRE's larval, and whether the template that asks came through PF_KEY.
fn larval_ends(acquire: &UserAcquire, attributes: Attributes<'_>) -> Option<(Ends, bool)> {
    let wanted = templates(attributes).find(|tmpl| {
        tmpl.id.proto == acquire.id.proto && (tmpl.id.daddr == [0; 16] || tmpl.id.daddr == acquire.id.daddr)
    });
    let family = wanted.map_or(acquire.sel.family, |tmpl| tmpl.family);
    let ours = wanted.is_some_and(|tmpl| tmpl.share == SHARE_TAG);
    Some((ends_from_xfrm(&acquire.saddr, &acquire.id.daddr, family.get())?, ours))
}

impl XfrmEngine {
    /// Sends an ACQUIRE to registered key managers.
    pub(super) fn sa_wanted(&mut self, acquire: &Acquire, cx: &mut Context<'_>) -> Result<(), Errno> {
        let xfrm = acquire.attached.xfrm.clone();
        self.shadow.want(Larval { seq: acquire.seq, ends: acquire.ends, proto: acquire.proto, xfrm });
        let satype = SaType::from_protocol(acquire.proto);
        let header = Header::new(MessageType::ACQUIRE, satype, acquire.seq, 0);
        let ext = SadbXPolicy {
            policy_type: PolicyType::IPSEC.0.into(),
            dir: PolicyDirection::OUTBOUND.0,
            id: acquire.policy.into(),
            priority: acquire.priority.into(),
            ..Default::default()
        };
        let combinations =
            acquire.allowed.map_or_else(Vec::new, |(auth, encrypt)| self.combinations(satype, auth, encrypt));
        cx.send(Audience::Registered, header, |writer| {
            write_host(writer, Ext::ADDRESS_SRC, acquire.ends.src());
            write_host(writer, Ext::ADDRESS_DST, acquire.ends.dst());
            writer.policy(ext, &[]);
            if matches!(satype, SaType::AH | SaType::ESP) {
                writer.proposal(32, &combinations);
            }
            acquire.attached.write(writer);
        })
    }

    /// A key manager gives up an ACQUIRE: its larval would stop all flows to the same peer until it expires. XFRM has no message for
    /// that, but removes a larval as any SA: by its SPI, so that it gets one. Where that fails it expires.
    pub(super) fn give_up(&mut self, header: Header, seq: u32, cx: &mut Context<'_>) {
        let Some(Larval { ends, proto, xfrm, .. }) = self.shadow.give_up(seq) else { return };
        let mut larval = Sa::new(ends, 0, proto, 0);
        // By number and destination. If it is gone already another is made, as nobody else's policy wants it, and removed again.
        (larval.seq, larval.reqid) = (seq, u32::MAX);
        let max = if proto == IpsecProtocol::IPCOMP { MAX_CPI } else { SPIS.1 };
        let info = UserspiInfo { info: usersa_info(&larval), min: SPIS.0.into(), max: max.into() };
        self.writer.message(message::ALLOCSPI, REQUEST, self.requests.number(), 0, &info);
        write_xfrm(&xfrm, &mut self.writer);
        if self.requests.ask(&mut self.writer).is_err() {
            return;
        }
        let Some(id) = self.answered_sa(cx.now).map(|sa| sa.id()) else { return };
        if self.write_delete(header, &id, REQUEST | ACK).is_ok() && self.requests.order(&mut self.writer).is_ok() {
            self.given_up = Some(id);
            self.take_events(cx);
            self.given_up = None;
        }
    }

    /// The combinations that the masks of a template allow (`dump_ah_combs`, `dump_esp_combs`).
    fn combinations(&self, satype: SaType, aalgos: u32, ealgos: u32) -> Vec<SadbComb> {
        let allowed = |mask: u32, algorithm: &&Algorithm| algorithm.id < 32 && mask & (1 << algorithm.id) != 0;
        let auth: Vec<_> = self.known(Kind::Auth).filter(|a| allowed(aalgos, a)).collect();
        let one = |auth: &Algorithm, encrypt: Option<&Algorithm>| {
            let ((auth_min, auth_max), (min, max)) =
                (auth.listed_keys(), encrypt.map_or((0, 0), Algorithm::listed_keys));
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
