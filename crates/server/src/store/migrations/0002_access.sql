-- Who may do what, and the record of what was done. Secrets are kept as digests; the signing keys' private halves are
-- here: the data directory is its owner's alone.

create table account (
    id text primary key,
    username text not null unique,
    record text not null        -- JSON
) strict;

create table session (
    id text primary key,
    account text not null,
    record text not null        -- JSON
) strict;
create index session_of_account on session (account);

create table api_token (
    id text primary key,
    account text not null,
    record text not null        -- JSON
) strict;
create index api_token_of_account on api_token (account);

create table signing_key (
    kid text primary key,
    record text not null        -- JSON
) strict;

-- Append only. hash = SHA-256(hash of the entry before, record): a change anywhere breaks the chain there. The other
-- columns are read out of the record, so that nothing outside the chain is believed.
create table audit (
    seq integer primary key,
    record text not null,       -- JSON
    hash blob not null,
    at integer as (case when json_valid(record) then record ->> '$.at' end) virtual,
    kind text as (case when json_valid(record) then record ->> '$.kind' end) virtual,
    action text as (case when json_valid(record) then record ->> '$.action' end) virtual,
    actor text as (case when json_valid(record) then record ->> '$.actor' end) virtual,
    outcome text as (case when json_valid(record) then record ->> '$.outcome' end) virtual,
    deployment text as (case when json_valid(record) then record ->> '$.deployment' end) virtual
) strict;
create index audit_of_actor on audit (actor, seq) where actor is not null;
create index audit_of_deployment on audit (deployment, seq) where deployment is not null;

-- The chain's end now and then, signed: an end that was cut off, or a chain written anew, shows.
create table audit_head (
    seq integer primary key,
    hash blob not null,
    kid text not null,
    signature blob not null
) strict;
