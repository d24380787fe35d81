// The page around noVNC. What is entered, or given as ?host=&port=&path=&encrypt=&view_only=&autoconnect=, is used for one
// connection and kept nowhere: no storage, no cookie, and it is taken out of the address bar and so out of the history.
import RFB from './novnc/core/rfb.js';

const byId = (id) => document.getElementById(id);
const [form, screen, status, disconnect] = ['settings', 'screen', 'status', 'disconnect'].map(byId);
const isOn = (value) => value !== null && !['', '0', 'false', 'no', 'off'].includes(value.toLowerCase());

/** A pasted ws://… or wss://… address is taken apart into the fields. */
function takeApart() {
  const match = /^\s*(wss?):\/\/([^/]+)\/(.*?)\s*$/.exec(byId('path').value);
  if (!match) return;
  const url = new URL(`${match[1] === 'wss' ? 'https' : 'http'}://${match[2]}`);
  byId('encrypt').checked = match[1] === 'wss';
  byId('host').value = url.hostname;
  byId('port').value = url.port;
  byId('path').value = match[3];
}

/** The address that the fields say; throws a sentence for the user, and points at the field that is wrong. */
function address() {
  takeApart();
  const wrong = (id, sentence) => {
    byId(id).focus();
    throw new Error(sentence);
  };
  const host = byId('host').value.trim();
  const port = byId('port').value.trim();
  const path = byId('path').value.trim().replace(/^\/+/, '');
  if (!/^[^\s/?#@]+$/.test(host)) wrong('host', 'Enter a host name or address, without a path.');
  if (port !== '' && !(/^\d+$/.test(port) && port > 0 && port < 65_536))
    wrong('port', 'The port is a number from 1 to 65535.');
  if (path === '') wrong('path', 'Enter the path of the sandbox.');
  const shown = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
  try {
    return new URL(`${byId('encrypt').checked ? 'wss' : 'ws'}://${shown}${port && `:${port}`}/${path}`).href;
  } catch {
    return wrong('host', 'That host cannot be part of an address.');
  }
}

function connect() {
  let url;
  try {
    url = address();
  } catch (err) {
    status.textContent = err.message;
    return;
  }
  const { host } = new URL(url);
  status.textContent = `Connecting to ${host} …`;
  form.hidden = true;
  screen.hidden = false;
  disconnect.hidden = false;
  let connected = false;
  let why = '';
  const rfb = new RFB(screen, url);
  rfb.scaleViewport = true;
  rfb.viewOnly = byId('view_only').checked;
  disconnect.onclick = () => rfb.disconnect();
  rfb.addEventListener('connect', () => {
    connected = true;
    status.textContent = `Connected to ${host}.`;
    rfb.focus();
  });
  rfb.addEventListener('credentialsrequired', () => {
    why = 'It asks for a password, which a sandbox of Berth never does.';
    rfb.disconnect();
  });
  rfb.addEventListener('securityfailure', (event) => {
    why = event.detail.reason ?? 'It turned us away.';
  });
  rfb.addEventListener('disconnect', (event) => {
    screen.replaceChildren();
    screen.hidden = true;
    disconnect.hidden = true;
    form.hidden = false;
    byId('path').focus();
    if (!connected)
      status.textContent = `Could not connect to ${host}. ${why || 'Check host, port, path and encryption; a ticket may have run out.'}`;
    else if (event.detail.clean) status.textContent = 'Disconnected.';
    else status.textContent = 'The connection was lost; the sandbox may have ended.';
  });
}

const given = new URLSearchParams(location.search);
byId('host').value = given.get('host') ?? location.hostname;
byId('port').value = given.get('port') ?? (given.has('host') ? '' : '3000');
byId('path').value = given.get('path') ?? '';
byId('encrypt').checked = given.has('encrypt') ? isOn(given.get('encrypt')) : location.protocol === 'https:';
byId('view_only').checked = isOn(given.get('view_only'));
if (location.search) history.replaceState(null, '', location.pathname);

form.addEventListener('submit', (event) => {
  event.preventDefault();
  connect();
});
byId('path').addEventListener('change', takeApart);
if (isOn(given.get('autoconnect'))) connect();
