// What the page shows, as trees made of the state. Nothing here asks the server for anything.

import { h } from "./dom.js";

const TONES = {
  Succeeded: "is-good", Running: "is-busy", Failed: "is-bad", Cancelled: "is-bad", RolledBack: "is-bad",
  Paused: "is-warn", PendingApproval: "is-warn", WaitingForApproval: "is-warn", Degraded: "is-warn",
  Stopping: "is-warn", Stopped: "soft", Skipped: "soft", Pending: "soft", Initializing: "is-warn",
  pass: "is-good", fail: "is-bad", inconclusive: "is-warn",
};
const MARKS = { Succeeded: "✓", Running: "●", Failed: "✗", Cancelled: "✗", RolledBack: "↩", Paused: "‖", PendingApproval: "?",
  WaitingForApproval: "?", Skipped: "–", Pending: "·" };

const status = (name, node = false) =>
  h("span", { class: `status ${node && name === "Running" ? "is-good" : TONES[name] ?? ""}` }, MARKS[name] && !node ? `${MARKS[name]} ` : "", name);

/** ISO 8601 durations as people read them. */
export function duration(text) {
  const found = /^PT(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?$/.exec(text ?? "");
  if (!found) return text ?? "";
  const [hours, minutes, seconds] = found.slice(1).map((part) => Number(part ?? 0));
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${Math.round(seconds)} s`;
  return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}

export function ago(time) {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

const number = (value) => value.toLocaleString("en");

export function top(state, act) {
  // Nothing is known, and nothing can be done, before somebody has logged in.
  if (!state.entered) return [h("h1", {}, "Hotswap"), null];
  const sign = state.connected ? h("span", { class: "is-good" }, "● live") : h("span", { class: "is-warn" }, "○ reconnecting");
  return [
    h("h1", {}, "Hotswap"),
    state.health ? h("span", { class: "soft small" }, `${state.health.version}, ${number(state.health.events)} events`) : null,
    state.health && state.health.status !== "Healthy" ? h("span", { class: "is-bad" }, `${state.health.status}: ${state.health.reason ?? ""}`) : null,
    h("span", { class: "grow" }),
    sign,
    h("button", { class: "main", onclick: act.deploy, accesskey: "d" }, "Deploy…"),
    h("button", { onclick: act.theme, "aria-label": "Switch between light and dark" }, "◐"),
    state.user ? h("button", { onclick: act.logout }, `Log out ${state.user}`) : null,
    h("a", { href: "swagger" }, "API"),
  ];
}

/** The versions that an environment's nodes serve, by module: how many nodes each. */
function served(nodes) {
  const modules = new Map();
  for (const node of nodes) {
    for (const module of node.modules) {
      const versions = modules.get(module.moduleName) ?? new Map();
      for (const route of module.routes) {
        versions.set(route.version, (versions.get(route.version) ?? 0) + route.weight / 100);
      }
      modules.set(module.moduleName, versions);
    }
  }
  return modules;
}

function versionBar(name, versions, total) {
  const sorted = [...versions].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
  const told = sorted.reduce((sum, [, count]) => sum + count, 0);
  const label = sorted.map(([version, count]) => `${version} on ${+count.toFixed(1)}`).join(", ") || "on no node";
  return h("div", { key: name },
    h("div", { class: "small row between" }, h("span", {}, name),
      h("span", {}, sorted.map(([version, count], i) =>
        h("span", { key: version, class: "soft" }, " ", h("i", { class: `key v${i % 4}` }), `${version} ×${+count.toFixed(1)}`)))),
    h("div", { class: "bar", role: "img", "aria-label": `${name}: ${label} of ${total} nodes` },
      sorted.map(([version, count], i) => h("span", { key: version, class: `v${i % 4}`, grow: String(count) })),
      total > told ? h("span", { key: "none", class: "none", grow: String(total - told) }) : null));
}

export function environments(state) {
  const card = (cluster) => {
    const nodes = state.nodes.filter((node) => node.environment === cluster.environment);
    const modules = served(nodes);
    const rps = nodes.reduce((sum, node) => sum + (node.health?.requestsPerSecond ?? 0), 0);
    return h("div", { class: "card", key: cluster.environment },
      h("h3", {}, cluster.environment,
        h("span", { class: cluster.isHealthy ? "is-good" : "is-bad" }, `${cluster.healthyNodes} of ${cluster.totalNodes} healthy`)),
      h("div", { class: "soft small" }, cluster.totalNodes ? `${number(Math.round(rps))} requests/s` : "no nodes"),
      [...modules].sort().map(([name, versions]) => versionBar(name, versions, nodes.length)));
  };
  return h("section", { "aria-labelledby": "h-env", key: "env" }, h("h2", { id: "h-env" }, "Environments"),
    h("div", { class: "cards" }, state.clusters.map(card)));
}

export function deployments(state, act) {
  const row = (d) => h("tr", { key: d.executionId, class: d.executionId === state.selected ? "on" : null },
    h("td", {}, h("button", { class: "link", onclick: () => act.select(d.executionId),
      "aria-pressed": String(d.executionId === state.selected) }, `${d.moduleName} ${d.version || "unload"}`)),
    h("td", {}, d.targetEnvironment), h("td", {}, status(d.status)),
    h("td", { class: "soft once" }, ago(d.startTime)), h("td", { class: "num" }, duration(d.duration)));
  return h("section", { "aria-labelledby": "h-dep", key: "dep" }, h("h2", { id: "h-dep" }, "Deployments"),
    state.deployments.length
      ? h("div", { class: "scroll" }, h("table", {},
        h("thead", {}, h("tr", {}, ["Release", "To", "Status", "Started", "Took"].map((t) => h("th", { scope: "col", key: t }, t)))),
        h("tbody", {}, state.deployments.map(row))))
      : h("p", { class: "soft" }, "None yet. Push a module (hotswap module push DIR), then deploy it."));
}

const CONTROLS = [
  ["pause", "Pause", ["Running"]], ["resume", "Resume", ["Paused"]], ["skip", "Skip step", ["Running", "Paused"]],
  ["promote", "Promote", ["Running", "Paused"]], ["abort", "Abort", ["Running", "Paused", "PendingApproval"]],
  ["rollback", "Roll back", ["Succeeded"]],
];
const APPROVALS = [["approve", "Approve"], ["reject", "Reject"]];

export function detail(state, act) {
  const d = state.detail;
  if (!d) return h("section", { key: "detail" }, h("p", { class: "soft" }, "Choose a deployment to see its stages."));
  const buttons = CONTROLS.filter(([, , when]) => when.includes(d.status)).map(([verb, name]) =>
    h("button", { key: verb, class: verb === "abort" || verb === "rollback" ? "danger" : null, onclick: () => act.control(verb, name, d) }, `${name}…`));
  if (d.status === "PendingApproval") {
    buttons.push(...APPROVALS.map(([verb, name]) => h("button", { key: verb, onclick: () => act.approval(verb, name, d) }, `${name}…`)));
  }
  const stage = (s) => h("tr", { key: s.name },
    h("td", {}, s.name), h("td", {}, status(s.status)),
    h("td", { class: "soft" }, s.strategy ?? ""),
    h("td", { class: "num" }, s.nodesDeployed === undefined || s.nodesDeployed === null || s.status === "Pending" ? "" :
      s.nodesFailed ? `${s.nodesDeployed} (${s.nodesFailed} failed)` : String(s.nodesDeployed)),
    h("td", { class: "num" }, s.status === "Pending" || s.status === "Skipped" ? "" : duration(s.duration)),
    h("td", { class: "message" }, s.message));
  return h("section", { "aria-labelledby": "h-one", key: "detail" },
    h("div", { class: "row between" },
      h("h2", { id: "h-one" }, `${d.moduleName} ${d.version || "unloading"} to ${d.targetEnvironment} `, status(d.status)),
      h("div", { class: "row" }, buttons)),
    h("div", { class: "soft small mono" }, d.executionId),
    d.message ? h("p", {}, d.message) : null,
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Stage", "Status", "Strategy", "Nodes", "Took", "What"].map((t) => h("th", { scope: "col", key: t }, t)))),
      h("tbody", {}, d.stages.map(stage)))),
    state.analysis?.rollouts.map((rollout) => judge(rollout)),
    state.log.length ? [h("h3", {}, "What happened"), h("ol", { class: "small", reversed: true },
      state.log.map((event) => h("li", { key: String(event.seq) },
        h("span", { class: "soft" }, `${event.time.slice(11, 19)} `), event.message || event.type)))] : null);
}

function judge(rollout) {
  const step = rollout.steps.find((s) => s.step === rollout.step);
  const arm = (name, version, css, counts) => h("div", { class: "card", key: name },
    h("div", {}, h("i", { class: `key ${css}` }), `${name} ${version ?? "none"}`),
    counts ? [
      h("div", {}, `${number(counts.requests)} requests`),
      h("div", {}, `${number(counts.errors)} errors (${counts.errorRate.toFixed(2)} %)`),
      h("div", { class: "soft" }, counts.latencyP99 === null || counts.latencyP99 === undefined ? "" : `p99 ${counts.latencyP99.toFixed(1)} ms`),
    ] : h("div", { class: "soft" }, "nothing counted yet"));
  return h("div", { key: rollout.environment },
    h("h3", {}, `The judge in ${rollout.environment}, step ${rollout.step}: `, status(rollout.outcome)),
    h("p", { class: "small" }, rollout.verdict),
    h("div", { class: "arms" }, arm("candidate", rollout.candidate, "v1", step?.candidate), arm("control", rollout.control, "v0", step?.control)),
    chart(rollout.series));
}

/** Error rates of both arms, interval by interval. */
function chart(series) {
  if (series.length < 2) return null;
  const most = Math.max(1, ...series.flatMap((p) => [p.candidate.errorRate, p.control.errorRate]));
  const path = (arm) => series.map((p, i) => `${i ? "L" : "M"}${(i / (series.length - 1)) * 600},${84 - (p[arm].errorRate / most) * 78}`).join("");
  return h("figure", { key: "chart" },
    h("svg", { class: "chart", viewBox: "0 0 600 90", preserveAspectRatio: "none", role: "img",
      "aria-label": `Error rates by interval, up to ${most.toFixed(1)} %` },
    h("line", { x1: "0", x2: "600", y1: "84", y2: "84" }),
    h("path", { class: "control", d: path("control") }), h("path", { class: "candidate", d: path("candidate") })),
    h("figcaption", { class: "soft small" }, `Errors in each interval, 0 to ${most.toFixed(1)} %`));
}

export function modules(state, act) {
  const row = (module, release) => {
    const stable = module.environments.filter((place) => place.version === release.version).map((place) => place.environment);
    const barred = release.yankReason ? `withdrawn: ${release.yankReason}` : release.holdReason ? `on hold: ${release.holdReason}` : "";
    return h("tr", { key: `${module.moduleName} ${release.version}` },
      h("td", {}, module.moduleName), h("td", {}, release.version), h("td", {}, release.kind),
      h("td", { class: "soft once" }, ago(release.pushedAt)),
      h("td", { class: "message" }, stable.join(", "), barred ? h("span", { class: "is-warn" }, stable.length ? "; " : "", barred) : null),
      h("td", {}, h("div", { class: "row" },
        h("button", { onclick: () => act.deploy(null, module.moduleName, release.version), "aria-label": `Deploy ${module.moduleName} ${release.version}` }, "Deploy…"),
        h("button", { onclick: () => act.release(release.holdReason ? "unhold" : "hold", module.moduleName, release.version),
          "aria-label": `${release.holdReason ? "Lift the hold of" : "Hold"} ${module.moduleName} ${release.version}` }, release.holdReason ? "Lift hold…" : "Hold…"),
        h("button", { onclick: () => act.release(release.yankReason ? "unyank" : "yank", module.moduleName, release.version),
          "aria-label": `${release.yankReason ? "Offer again" : "Withdraw"} ${module.moduleName} ${release.version}` }, release.yankReason ? "Offer again…" : "Withdraw…"))));
  };
  return h("section", { "aria-labelledby": "h-mod", key: "mod" }, h("h2", { id: "h-mod" }, "Modules"),
    state.modules.length ? h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Module", "Version", "Kind", "Pushed", "Stable in", ""].map((t) => h("th", { scope: "col", key: t }, t)))),
      h("tbody", {}, state.modules.flatMap((module) => module.versions.map((release) => row(module, release))))))
      : h("p", { class: "soft" }, "None yet: hotswap module push DIR adds one."));
}

export function nodes(state, act) {
  const wanted = state.filter.trim().toLowerCase();
  const text = (node) => [node.nodeId, node.environment, node.status, ...node.modules.flatMap((m) => m.routes.map((r) => `${m.moduleName} ${r.version}`))].join(" ").toLowerCase();
  const shown = state.nodes.filter((node) => text(node).includes(wanted));
  const runs = (node) => node.modules.flatMap((m) => m.routes.map((r) => `${m.moduleName} ${r.version}${r.weight < 100 ? ` (${r.weight} %)` : ""}`)).join(", ");
  const notes = (node) => [node.drain ? `${node.drain.state.toLowerCase()} by ${node.drain.by}${node.drain.waitsFor ? `, waits for ${node.drain.waitsFor}` : ""}` : "",
    ...node.modules.map((m) => m.exception ?? "")].filter(Boolean).join("; ");
  const row = (node) => h("tr", { key: node.nodeId },
    h("td", {}, node.nodeId), h("td", {}, node.environment), h("td", {}, status(node.status, true)),
    h("td", { class: "soft once" }, node.lastHeartbeat ? ago(node.lastHeartbeat) : "never"),
    h("td", { class: "message" }, runs(node), notes(node) ? h("div", { class: "is-warn small" }, notes(node)) : null),
    h("td", {}, h("button", { onclick: () => act.node(node.drain ? "undrain" : "drain", node), "aria-label": `${node.drain ? "Undrain" : "Drain"} ${node.nodeId}` },
      node.drain ? "Undrain…" : "Drain…")));
  return h("section", { "aria-labelledby": "h-nodes", key: "nodes" },
    h("div", { class: "row between" }, h("h2", { id: "h-nodes" }, `Nodes (${shown.length}${shown.length < state.nodes.length ? ` of ${state.nodes.length}` : ""})`),
      h("label", { class: "row small" }, "Filter ", h("input", { type: "search", value: state.filter, accesskey: "f", oninput: (e) => act.filter(e.target.value) }))),
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Node", "Environment", "Status", "Report", "Serves", ""].map((t) => h("th", { scope: "col", key: t }, t)))),
      h("tbody", {}, shown.slice(0, 200).map(row)))),
    shown.length > 200 ? h("p", { class: "soft small" }, `The first 200 are shown: filter for others.`) : null);
}
