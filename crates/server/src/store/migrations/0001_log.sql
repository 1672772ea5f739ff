-- The log is the truth; everything else here is made of it, in the same transactions.

create table meta (key text primary key, value text not null) strict;

-- One row. An append takes its numbers from here, and only under the epoch that holds it: that is the fence.
create table log_head (
    id integer primary key check (id = 1),
    epoch integer not null,
    next_seq integer not null
) strict;
insert into log_head (id, epoch, next_seq) values (1, 0, 1);

create table event (
    seq integer primary key,
    epoch integer not null,
    at integer not null,        -- core time, ms
    wall integer not null,      -- wall time, ms since 1970
    type text not null,
    deployment text,            -- whose decisions it belongs to, where it is about one
    body text not null          -- JSON
) strict;
create index event_of_deployment on event (deployment, seq) where deployment is not null;

-- `ord` is the number of the event that asked for it: newest first is by it, and so are cursors.
create table deployment (
    ord integer primary key,
    id text not null unique,
    module text not null,
    version text not null,
    environment text not null,
    status text not null,
    started integer not null,   -- wall time, ms since 1970
    ended integer,
    record text not null        -- JSON
) strict;
create index deployment_by_status on deployment (status, ord);
create index deployment_by_module on deployment (module, ord);
create index deployment_by_environment on deployment (environment, ord);

-- First answers to requests that carried an Idempotency-Key.
create table answer (
    scope text not null,        -- who asked, and for what
    key text not null,
    fingerprint text not null,  -- of the request's body
    wall integer not null,
    answer text not null,       -- JSON
    primary key (scope, key)
) strict;
create index answer_by_age on answer (wall);

create table snapshot (
    seq integer primary key,
    wall integer not null,
    state text not null         -- JSON
) strict;
