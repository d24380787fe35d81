import '@fontsource-variable/inter/wght.css';
import './styles/tokens.css';
import './styles/base.css';
import './styles/parts.css';
import './styles/frame.css';
import './styles/sandboxes.css';
import './styles/screen.css';
import './styles/recordings.css';
import './styles/overview.css';
import { render } from 'preact';
import { App } from './app.tsx';
import { resume } from './session.ts';
import './theme.ts';

render(<App />, document.getElementById('app') as HTMLElement);
void resume();
