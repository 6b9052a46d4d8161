import { lazy, Suspense, useEffect, useRef } from "react";
import { Link, Redirect, Route, Switch, useLocation } from "wouter";
import { short } from "./format";
import { setAside, useOverview } from "./head";
import { useConnection, useLive } from "./live";
import { Pipeline } from "./pages/pipeline";
import { toggleTheme, useTheme } from "./theme";

const Dashboards = lazy(() => import("./pages/dashboards"));
const Tables = lazy(() => import("./pages/tables"));
const Records = lazy(() => import("./pages/records"));
const Log = lazy(() => import("./pages/log"));
const Journal = lazy(() => import("./pages/journal"));
const Alerts = lazy(() => import("./pages/alerts"));
const Settings = lazy(() => import("./pages/settings"));

const PLACES = [
  ["/pipeline", "Pipeline"],
  ["/dashboards", "Dashboards"],
  ["/tables", "Tables"],
  ["/records", "Records"],
  ["/log", "Log"],
  ["/logs", "Logs"],
  ["/alerts", "Alerts"],
  ["/settings", "Settings"],
] as const;

export function App() {
  useConnection();
  return (
    <div className="house">
      <a className="skip" href="#room">
        Skip to the content
      </a>
      <Side />
      <main className="room" id="room" tabIndex={-1}>
        <Suspense fallback={<p className="faint">…</p>}>
          <Switch>
            <Route path="/pipeline" component={Pipeline} />
            <Route path="/dashboards" component={Dashboards} />
            <Route path="/tables" component={Tables} />
            <Route path="/records" component={Records} />
            <Route path="/log" component={Log} />
            <Route path="/logs" component={Journal} />
            <Route path="/alerts" component={Alerts} />
            <Route path="/settings" component={Settings} />
            <Route path="/">
              <Redirect to="/pipeline" replace />
            </Route>
            <Route>
              <h1>There is nothing here</h1>
              <p>
                <Link href="/pipeline">The pipeline</Link> is a good place to begin.
              </p>
            </Route>
          </Switch>
        </Suspense>
      </main>
    </div>
  );
}

function Side() {
  const [place] = useLocation();
  const theme = useTheme();
  const overview = useOverview().data;
  const status = useLive().status;
  const aside = setAside(status?.streams ?? {});
  const firing = status?.alerts.filter((each) => each.state === "firing").length ?? 0;
  const pages = useRef<HTMLElement>(null);
  // On a phone the pages stand in one line, which is longer than the screen.
  useEffect(() => {
    const here = pages.current?.querySelector<HTMLElement>("[aria-current]");
    if (pages.current && here) pages.current.scrollLeft = here.offsetLeft - pages.current.offsetLeft - (pages.current.clientWidth - here.clientWidth) / 2;
  }, [place]);
  return (
    <header className="side">
      <Link className="mark" href="/pipeline" aria-label="Headrace">
        <img src="/mark.svg" alt="" />
        <span>Headrace</span>
      </Link>
      <nav aria-label="Pages" ref={pages}>
        <ul>
          {PLACES.map(([path, name]) => (
            <li key={path}>
              <Link href={path} aria-current={place === path ? "page" : undefined}>
                {name}
                {path === "/alerts" && firing > 0 && (
                  <span className="count alarm" title="alerts that fire">
                    {firing}
                  </span>
                )}
                {path === "/records" && aside > 0 && (
                  <span className="count" title="records that were ever set aside">
                    {short(aside)}
                  </span>
                )}
              </Link>
            </li>
          ))}
        </ul>
      </nav>
      <div className="foot">
        <span>profile {overview?.profile ?? "…"}</span>
        <span>version {overview?.version ?? "…"}, times in UTC</span>
      </div>
      <button className="button plain small" onClick={toggleTheme} aria-label={`Change to ${theme === "dark" ? "light" : "dark"}`}>
        {theme === "dark" ? "Light" : "Dark"}
      </button>
    </header>
  );
}
