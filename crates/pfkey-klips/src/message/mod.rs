//! KLIPS's messages: `msg_parsers[]`, and a file for each kind of message.

mod flow;
mod group;
mod listener;
mod sa;
mod spi;

use super::{Context, Engine, Request};
use pfkey_hub::Errno;
use pfkey_wire::Header;

/// A message's parser.
#[derive(Clone, Copy)]
pub struct Parser {
    /// KLIPS's name of it.
    pub name: &'static str,
    /// What it does. The request has passed the checks of its extensions.
    ///
    /// # Errors
    /// The errno of the error report.
    pub run: fn(&mut Engine, &Request<'_>, &mut Context<'_>) -> Result<(), Errno>,
}

const fn parser(
    name: &'static str,
    run: fn(&mut Engine, &Request<'_>, &mut Context<'_>) -> Result<(), Errno>,
) -> Option<Parser> {
    Some(Parser { name, run })
}

/// The parsers by message number. The last one is there when NAT-T is ([`Engine::set_nat_t`]).
pub const MSG_PARSERS: [Option<Parser>; super::number::MESSAGES] = [
    None,
    parser("pfkey_getspi_parse", spi::getspi),
    parser("pfkey_update_parse", sa::update),
    parser("pfkey_add_parse", sa::add),
    parser("pfkey_delete_parse", sa::delete),
    parser("pfkey_get_parse", sa::get),
    parser("pfkey_acquire_parse", listener::acquire),
    parser("pfkey_register_parse", listener::register),
    parser("pfkey_expire_parse", listener::expire),
    parser("pfkey_flush_parse", sa::flush),
    parser("pfkey_dump_parse", unimplemented),
    parser("pfkey_x_promisc_parse", unimplemented),
    parser("pfkey_x_pchange_parse", unimplemented),
    parser("pfkey_x_grpsa_parse", group::grpsa),
    parser("pfkey_x_addflow_parse", flow::addflow),
    parser("pfkey_x_delflow_parse", flow::delflow),
    parser("pfkey_x_msg_debug_parse", debug),
    parser("pfkey_x_nat_t_new_mapping_parse", nat_t_new_mapping),
];

/// DUMP, X_PROMISC and X_PCHANGE: KLIPS never got them.
fn unimplemented(_: &mut Engine, _: &Request<'_>, _: &mut Context<'_>) -> Result<(), Errno> {
    Err(Errno::ENOSYS)
}

/// X_DEBUG. It is not answered.
fn debug(engine: &mut Engine, request: &Request<'_>, _: &mut Context<'_>) -> Result<(), Errno> {
    engine.debug.apply(&request.debug().ok_or(Errno::EINVAL)?);
    Ok(())
}

/// X_NAT_T_NEW_MAPPING is the engine's to send.
fn nat_t_new_mapping(_: &mut Engine, _: &Request<'_>, _: &mut Context<'_>) -> Result<(), Errno> {
    Err(Errno::EINVAL)
}

/// The IP protocol of the request's SA.
fn protocol_of(header: Header) -> Result<u8, Errno> {
    super::number::protocol(header.satype).ok_or(Errno::EINVAL)
}
