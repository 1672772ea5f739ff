-- Which nodes are let in. Join tokens are kept as digests; a node's key never comes here.

create table join_token (
    id text primary key,
    record text not null        -- JSON
) strict;

-- Certificates that may still be shown: the expired ones are forgotten. Times are in ms since 1970.
create table node_certificate (
    serial text primary key,    -- hexadecimal
    node text not null,
    environment text not null,
    key text not null,          -- SHA-256 of the public key, hexadecimal
    token text,                 -- the join token that it was given against
    issued integer not null,
    expires integer not null,
    revoked integer
) strict;
create index node_certificate_of_node on node_certificate (node);

-- A node's certificates that this log doesn't know, since a backup was restored, are refused after this.
create table node_revocation (
    node text primary key,
    at integer not null
) strict;
