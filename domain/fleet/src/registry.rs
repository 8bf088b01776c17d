//! Things, thing types, certificates, policies and their attachments.
