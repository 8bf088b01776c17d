//! Sessions and their queues, retained messages, shadows and the outbox of one group.
